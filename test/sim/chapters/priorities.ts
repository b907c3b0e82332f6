/** More than there is room for: who matters more has the others leave. */
import { createService, scaleService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { taskName } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { isActive, occupiesNode, type Task } from '#proto/model/task.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import type { Invariant } from '../invariants.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

/** A node has room for two such tasks, where nothing else is on it. */
const reservations = { cpuMillis: 1_500, memoryBytes: 0, pids: 0, generic: [] };
const heavy = (name: string, priority: number, replicas: number) =>
  aSpec(name, { priority, replicas, template: aTemplate({ reservations }), volumeLoss: 'recreate' });
const specs = [heavy('meek', 0, 2), heavy('bold', 200, 1), heavy('chief', 900, 1)];
const names = specs.map(({ name }) => name);

const wishes: readonly Wish[] = [
  {
    name: 'scale what is heavy',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => {
        const replicas = world.random.int(2 * world.hosts.length);
        world.wish(`scale ${spec.name} to ${replicas}`, (context) => scaleService(context, id, replicas));
      }),
  },
];

/** A moment for decisions and for those that leave. */
const soonMs = 30_000;

const nobodyWaitsForLess: Invariant = {
  name: 'no heavy task waits while less important ones of its kind have places',
  calm({ truth, clock }) {
    const heavy = [...truth.all('task')].filter((task) => names.includes(task.serviceName));
    const priorityOf = (task: Task) => truth.service(task.serviceId)?.spec.priority ?? 0;
    for (const task of heavy) {
      const waitedMs = clock.now() - Math.max(task.createdAtMs, task.stateAtMs, task.startAfterMs);
      if (task.state !== 'pending' || !isActive(task) || waitedMs < soonMs) continue;
      const takes = (node: Node) => node.state === 'ready' && node.availability === 'active' && node.away === '';
      const less = heavy.find((other) => {
        const node = other.nodeId === '' ? undefined : truth.node(other.nodeId);
        const stays = occupiesNode(other) && isActive(other) && node && takes(node) && node.subnet !== '';
        return stays && clock.now() - node.stateAtMs > soonMs && priorityOf(other) < priorityOf(task);
      });
      assert(!less, `${taskName(task)} has waited ${waitedMs} ms, and ${less && taskName(less)} has a place`);
    }
  },
};

function begin(world: World): void {
  for (const spec of specs) world.wish(`apply ${spec.name}`, (context) => createService(context, spec));
}

/** So that all have a place in the end. */
function tidyUp(world: World): void {
  for (const name of names)
    withNamed(world, [name], ({ id }) => world.wish(`scale ${name} to 0`, (context) => scaleService(context, id, 0)));
}

export const priorities: Chapter = {
  name: 'priorities',
  wishes,
  begin,
  tidyUp,
  invariants: () => [nobodyWaitsForLess],
};
