/** `whatif --kill` beside a real loss of power, with the production control plane and agents: the same places, thirty times. */
import { afterEach, expect, it } from 'vitest';
import { whatIf } from '#control-plane/controllers/what-if.ts';
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { noResources } from '#proto/model/resources.ts';
import { defaults } from '#proto/model/service.ts';
import { isActive, type Task } from '#proto/model/task.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import { unsettled } from './settled.ts';
import { World } from './world.ts';

let world: World;
afterEach(() => world.close());

const seats = (tasks: Iterable<Task>) =>
  [...tasks].filter(isActive).map(({ serviceName, slot, nodeName }) => `${serviceName}.${slot} ${nodeName}`);

/** A settled cluster with services of every kind of placement. */
async function settled(seed: number): Promise<void> {
  const random = seededRandom(seed);
  const oneOf = <T>(...choices: readonly T[]): T => choices[random.int(choices.length)]!;
  world = new World(seed, { hosts: 3 + random.int(3), replicas: 1 });
  world.start();
  await world.pass(2_000);
  for (let index = 0; index < 5; index++) {
    const spec = aSpec(`s${index}`, {
      mode: oneOf('replicated', 'replicated', 'replicated', 'global'),
      replicas: 1 + random.int(6),
      // Whose tasks are evened out at the same time is another story.
      rebalance: 'off',
      template: aTemplate({ reservations: { ...noResources, memoryBytes: random.int(3) * 2 ** 20 } }),
      placement: {
        ...defaults.placement,
        spread: oneOf([], ['node.labels.zone']),
        strategy: oneOf('spread', 'binpack'),
        maxReplicasPerNode: oneOf(0, 0, 2),
        affinities: oneOf([], [{ service: 'demo/s0', scope: 'node', apart: true, preferred: true }]),
      },
    });
    world.wish(`apply ${spec.name}`, (context) =>
      createService(context, spec.mode === 'global' ? { ...spec, replicas: 0 } : spec),
    );
    await world.pass(500);
  }
  await world.pass(8_000);
}

it.each(Array.from({ length: 30 }, (_, index) => index + 1))('is right with seed %i', async (seed) => {
  await settled(seed);
  const before = await unsettled(world);
  const { truth } = world;
  const host = world.hosts[seed % world.hosts.length]!;
  const supposed = { killed: [truth.node(host.id)!], drained: [], added: undefined, changes: [] };
  const forecast = whatIf(truth, supposed, world.clock.now());
  const expected = new Set(seats(truth.all('task')));
  for (const [id, tasks] of forecast.tasks) {
    const { name } = truth.service(id)!.spec;
    for (const { action, slot, node } of tasks) {
      if (action === 'stop') expected.delete(`${name}.${slot} ${node}`);
      else expected.add(`${name}.${slot} ${node}`);
    }
  }
  host.powerOff();
  await world.pass(10_000);
  assert(world.truth.node(host.id)?.state === 'down', 'its loss was not noticed');
  expect(seats(world.truth.all('task')).sort(), before).toEqual([...expected].sort());
});
