/** Autoscaling over minutes of simulated time, with a load that swings, rises and falls, and leaders that die meanwhile. */
import { afterEach, describe, expect, it } from 'vitest';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { type Autoscale, replicasOf } from '#proto/model/autoscale.ts';
import type { Service } from '#proto/model/service.ts';
import { anAutoscale, aSpec } from '#test/support/builders.ts';
import { unsettled } from './settled.ts';
import { World } from './world.ts';

const everyMs = 100;
const windowMs = 60_000;

let world: World;
let stopped = false;
afterEach(() => {
  stopped = true;
  return world.close();
});

const web = () => [...world.truth.all('service')].find(({ spec }) => spec.name === 'web') as Service;
const live = () => world.hosts.flatMap((host) => host.live());

/** A cluster that runs one autoscaled service, among whose tasks `load()` is shared, in percent of one core. */
async function scaled(seed: number, fields: Partial<Autoscale>, replicas: number, load: () => number) {
  world = new World(seed, { hosts: 4, replicas: 3 });
  stopped = false;
  const work = () => {
    if (stopped) return;
    const tasks = live();
    for (const { id } of tasks) {
      const seconds = (load() / 100 / tasks.length) * (everyMs / 1_000);
      world.cpuSeconds.set(id, (world.cpuSeconds.get(id) ?? 0) + seconds);
    }
    world.clock.after(everyMs, work);
  };
  work();
  world.start();
  await world.pass(2_000);
  const spec = aSpec('web', { replicas, autoscale: anAutoscale(fields) });
  world.wish('apply web', (context) => createService(context, spec));
  await world.pass(3_000);
}

/** When the number was changed, while `ms` pass. */
async function changesIn(ms: number): Promise<{ readonly atMs: number; readonly replicas: number }[]> {
  const changes: { atMs: number; replicas: number }[] = [];
  let before = replicasOf(web());
  for (const end = world.clock.monotonic() + ms; world.clock.monotonic() < end; ) {
    await world.pass(500);
    const replicas = replicasOf(web());
    if (replicas !== before) changes.push({ atMs: world.clock.monotonic(), replicas });
    before = replicas;
  }
  return changes;
}

/** The leader dies, and comes back as another replica of the cluster. */
function killLeader(): void {
  const leader = world.leader!;
  leader.crash();
  world.clock.after(5_000, () => leader.start());
}

/** 7: a change was once taken for a recommendation to stay. */
const seeds = [1, 2, 3, 7];

describe('a service that is scaled by what its tasks do', () => {
  it.each(seeds)('does not flap with a noisy load, also when leaders die: seed %i', async (seed) => {
    const random = seededRandom(seed);
    let noise = 0;
    await scaled(seed, {}, 4, () => {
      // Drawn anew for each second or so, as requests come in bursts.
      if (random.int(8) === 0) noise = (random.int(501) - 250) / 1_000;
      return 4 * 70 * (1 + noise);
    });
    await changesIn(windowMs);
    const changes = [...(await changesIn(5 * windowMs))];
    killLeader();
    changes.push(...(await changesIn(5 * windowMs)));
    for (const [index, { atMs }] of changes.entries())
      if (index > 0) expect(atMs - changes[index - 1]!.atMs).toBeGreaterThanOrEqual(windowMs - 1_000);
    expect(live().length).toBe(replicasOf(web()));
  });

  it.each(seeds)('follows a rise within one window, and a fall within two, seed %i', async (seed) => {
    let load = 60;
    await scaled(seed, {}, 1, () => load);
    await world.pass(windowMs);
    expect(live()).toHaveLength(1);
    const rise = world.clock.monotonic();
    await changesIn(windowMs / 2).then(() => undefined);
    for (let step = 0; step < 10; step++) {
      load += 40;
      await world.pass(2_000);
    }
    await world.pass(windowMs - (world.clock.monotonic() - rise - windowMs / 2));
    expect(live().length).toBeGreaterThanOrEqual(Math.floor(load / 77));
    expect(live().length).toBeLessThanOrEqual(10);
    load = 60;
    if (seed % 2 === 0) killLeader();
    await world.pass(2 * windowMs);
    expect(live()).toHaveLength(1);
    assert((await unsettled(world)) === '', await unsettled(world));
  });
});

describe('a service that may have no task', () => {
  const call = () => {
    for (const host of world.hosts) host.boot?.network.call(web().id);
  };

  /** Some tasks of a simulation have a connection that nobody ends: it keeps them. */
  const hangUp = () => {
    for (const host of world.hosts) host.boot?.network.open.clear();
  };

  it.each(seeds)('gets one when it is called, by whoever leads then, seed %i', async (seed) => {
    await scaled(seed, { min: 0, cpuPercent: 0, idleMs: 5_000 }, 1, () => 0);
    hangUp();
    await world.pass(10_000);
    expect(live()).toHaveLength(0);
    // Nobody leads for a moment; who holds requests tells of them again every second.
    killLeader();
    const began = world.clock.monotonic();
    while (live().length === 0) {
      call();
      await world.pass(1_000);
      assert(world.clock.monotonic() - began < 10_000, 'not within ten seconds');
    }
    expect(web().autoscaled?.why).toMatch(/^a request arrived at h[1-4]$/);
    // Called by all hosts at once, it has one task.
    expect(live()).toHaveLength(1);
    // A leader that dies right after does not take it away before its time.
    killLeader();
    await world.pass(4_000);
    expect(live()).toHaveLength(1);
    hangUp();
    await world.pass(12_000);
    expect(live()).toHaveLength(0);
  });
});
