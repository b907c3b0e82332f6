/** F30: a link that fails again and again. Tasks are not moved back and forth with it, and no seat stays empty. */
import { afterEach, describe, expect, it } from 'vitest';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { isPassedOver } from '#proto/model/node.ts';
import { aSpec } from '#test/support/builders.ts';
import { unsettled } from './settled.ts';
import { World } from './world.ts';

let world: World;
afterEach(() => world.close());

async function settled(seed: number): Promise<void> {
  world = new World(seed, { hosts: 4, replicas: 3 });
  world.start();
  await world.pass(2_000);
  world.wish('apply web', (context) => createService(context, aSpec('web', { replicas: 8 })));
  await world.pass(8_000 + seed * 37);
  assert((await unsettled(world)) === '', await unsettled(world));
}

/** The host hears nobody and nobody hears it for `offMs`, then all is well for `onMs`; so often. */
async function flap(name: string, offMs: number, onMs: number, times: number): Promise<void> {
  for (let time = 0; time < times; time++) {
    const others = [...world.replicas, ...world.hosts].map((other) => other.name).filter((other) => other !== name);
    const mends = others.flatMap((other) => [world.network.cut(name, other), world.network.cut(other, name)]);
    await world.pass(offMs);
    for (const mend of mends) mend();
    await world.pass(onMs);
  }
}

const tasks = () => [...world.truth.all('task')].length;
const nodeOf = (name: string) => [...world.truth.all('node')].find((node) => node.name === name)!;

describe('a link that flaps', () => {
  it.each([1, 2, 3])('at 1 Hz moves nothing, with seed %i', async (seed) => {
    await settled(seed);
    const before = tasks();
    await flap('h2', 500, 500, 120);
    expect(tasks()).toBe(before);
    expect(nodeOf('h2').flapping).toBeUndefined();
  });

  it.each([1, 2, 3])(
    'so that its node is down again and again moves its tasks twice, also when the leader goes: seed %i',
    async (seed) => {
      await settled(seed);
      const before = tasks();
      await flap('h2', 3_000, 3_000, 10);
      world.leader!.crash();
      await world.pass(10_000);
      await flap('h2', 3_000, 3_000, 10);
      await world.pass(10_000);
      expect(nodeOf('h2').flapping!.verdicts).toBeGreaterThanOrEqual(10);
      expect(isPassedOver(nodeOf('h2'))).toBe(true);
      // Two of eight: begun elsewhere with the first verdict and, as they were given back, with the second.
      expect(tasks() - before).toBe(4);
      expect(world.hosts.map((host) => host.live().length)).toEqual(expect.arrayContaining([0]));
      expect(world.hosts.reduce((count, host) => count + host.live().length, 0)).toBe(8);
      // It stays: then it is as good as any again.
      await world.pass(25 * 60_000);
      expect(nodeOf('h2').flapping).toBeUndefined();
      expect(world.hosts.map((host) => host.live().length)).toEqual([2, 2, 2, 2]);
    },
  );
});
