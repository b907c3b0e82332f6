/** How long failover takes when nothing else is wrong, in simulated time and over many seeds: the detection and the decisions, without the machine's own milliseconds. */
import { afterEach, describe, expect, it } from 'vitest';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { aSpec } from '#test/support/builders.ts';
import { unsettled } from './settled.ts';
import { World } from './world.ts';

let world: World;
afterEach(() => world.close());

/** A settled cluster of three replicas and four hosts that runs a service of six. */
async function settled(seed: number, watched = true): Promise<void> {
  world = new World(seed, { hosts: 4, replicas: 3, watched });
  world.start();
  await world.pass(2_000);
  world.wish('apply web', (context) => createService(context, aSpec('web', { replicas: 6 })));
  // Into the middle of any period there may be.
  await world.pass(3_000 + seed * 37);
  assert((await unsettled(world)) === '', await unsettled(world));
}

async function until(condition: () => boolean): Promise<number> {
  const sinceMs = world.clock.monotonic();
  while (!condition()) {
    await world.pass(10);
    assert(world.clock.monotonic() - sinceMs < 30_000, 'not within 30 s');
  }
  return world.clock.monotonic() - sinceMs;
}

const allRun = () => world.hosts.reduce((count, host) => count + host.live().length, 0) === 6;
const seeds = Array.from({ length: 10 }, (_, index) => index + 1);

describe('failover', () => {
  it.each(seeds)("runs a dead host's tasks elsewhere within 1.4 s, with seed %i", async (seed) => {
    await settled(seed);
    world.hosts[seed % 4]!.powerOff();
    expect(await until(allRun)).toBeLessThan(1_400);
  });

  it.each(seeds)('takes two seconds where no kernel answers probes, with seed %i', async (seed) => {
    await settled(seed, false);
    world.hosts[seed % 4]!.powerOff();
    expect(await until(allRun)).toBeLessThan(2_000);
  });

  it.each(seeds)(
    'leaves alone what runs on a host whose agent is stopped or killed for ten seconds, with seed %i',
    async (seed) => {
      await settled(seed);
      const before = world.hosts.map((host) => host.live());
      const host = world.hosts[seed % 4]!;
      if (seed % 2 === 0) host.process!.pause();
      else host.crashAgent();
      await world.pass(10_000);
      host.process?.resume();
      host.startAgent();
      await world.pass(5_000);
      expect(world.hosts.map((one) => one.live())).toEqual(before);
      expect([...world.truth.all('node')].map(({ state, away }) => `${state} ${away}`)).toEqual(
        before.map(() => 'ready '),
      );
    },
  );

  it.each(seeds)(
    'F11: has another leader within a second and a half, and touches no task, with seed %i',
    async (seed) => {
      await settled(seed);
      const before = world.hosts.map((host) => host.live());
      world.leader!.crash();
      const takenMs = await until(() => world.leader !== undefined);
      expect(takenMs).toBeLessThan(1_500);
      await until(() => world.hosts.every(world.tied));
      await world.pass(10_000);
      expect(world.hosts.map((host) => host.live())).toEqual(before);
    },
  );

  it.each(seeds)(
    'brings the nodes of a leader that stays without etcd to the next one as soon as there is one, with seed %i',
    async (seed) => {
      await settled(seed);
      const before = world.hosts.map((host) => host.live());
      const { leader } = world;
      leader!.run!.store.setConnected(false);
      const takenMs = await until(() => world.leader !== undefined && world.leader !== leader);
      expect(takenMs).toBeLessThan(5_000);
      expect(await until(() => world.hosts.every(world.tied))).toBeLessThan(500);
      await world.pass(60_000);
      expect(world.hosts.every(world.tied)).toBe(true);
      expect(world.hosts.map((host) => host.live())).toEqual(before);
    },
  );

  it.each(seeds)(
    'leaves the nodes of a leader that is without etcd for two seconds and a half where they are, with seed %i',
    async (seed) => {
      await settled(seed);
      const { leader } = world;
      leader!.run!.store.setConnected(false);
      world.during(2_500, () => leader!.run!.store.setConnected(true));
      const { epoch } = world;
      for (let ms = 0; ms < 5_000; ms += 10) {
        await world.pass(10);
        expect(world.hosts.every(world.tied)).toBe(true);
      }
      expect(world.epoch).toBe(epoch);
    },
  );

  it.each(seeds)(
    'of a host and the leader at once takes the new leader its full grace and little more, with seed %i',
    async (seed) => {
      await settled(seed);
      world.hosts[seed % 4]!.powerOff();
      world.leader!.crash();
      expect(await until(allRun)).toBeLessThan(7_000);
    },
  );
});
