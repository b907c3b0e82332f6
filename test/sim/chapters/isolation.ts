/** Tasks that fall ill and are kept beside their successors for who wants to look at them. */
import { createService, put } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { taskName } from '#proto/model/ids.ts';
import { containerSpec, defaults } from '#proto/model/service.ts';
import { isIsolated, isServing } from '#proto/model/task.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import type { SimFault } from '../faults.ts';
import type { Invariant } from '../invariants.ts';
import type { Chapter } from '../plot.ts';
import type { Wish } from '../workload.ts';

const forMs = 40_000;
const healthCheck = {
  ...defaults.healthCheck,
  test: ['CMD', 'check'],
  onUnhealthy: 'isolate',
  intervalMs: 1_000,
  timeoutMs: 500,
  retries: 2,
} as const;
const patients = ['lamb', 'ward'].map((name, index) =>
  aSpec(name, {
    replicas: 3,
    template: aTemplate({ container: containerSpec('clinic:1', { healthCheck }) }),
    isolation: { atMost: 1 + index, forMs },
  }),
);

const faults: readonly SimFault[] = [
  {
    name: 'a task falls ill',
    strike(world) {
      const well = [...world.truth.all('task')].filter((task) => isServing(task) && task.health === 'healthy');
      const task = well[world.random.int(Math.max(1, well.length))];
      if (!task) return undefined;
      world.ill.add(task.id);
      return taskName(task);
    },
  },
];

const wishes: readonly Wish[] = [
  {
    name: 'release an isolated task',
    make(world) {
      const found = [...world.truth.all('task')].filter(isIsolated);
      const task = found[world.random.int(Math.max(1, found.length))];
      if (!task) return;
      world.wish(`release ${taskName(task)}`, (context) => {
        const now = context.snapshot.task(task.id);
        if (!now || !isIsolated(now)) return [];
        return [put(context, 'task', now.id, { ...now, wanted: 'shutdown', why: 'released from isolation' })];
      });
    },
  },
];

const fewAreIsolated: Invariant = {
  name: 'no more tasks of a service are isolated than it keeps, and nobody calls them',
  step({ changes }, { truth }) {
    for (const { table, before, after } of changes) {
      if (table !== 'task' || !after || !isIsolated(after) || (before && isIsolated(before))) continue;
      const service = truth.service(after.serviceId);
      if (!service) continue;
      const all = [...truth.tasksOfService(service.id)].filter(isIsolated);
      assert(all.length <= service.spec.isolation.atMost, `${all.length} of ${service.spec.name} are isolated`);
      assert(after.health === 'unhealthy', `${taskName(after)} is isolated, and ${after.health || 'not checked'}`);
    }
  },
  calm({ truth, clock }) {
    for (const task of truth.all('task')) {
      if (!isIsolated(task)) continue;
      const overMs = clock.now() - task.isolatedUntilMs;
      assert(overMs < 10_000, `the isolation of ${taskName(task)} was over ${overMs} ms ago`);
    }
  },
};

export const isolation: Chapter = {
  name: 'isolation',
  faults,
  wishes,
  begin(world) {
    for (const spec of patients) world.wish(`apply ${spec.name}`, (context) => createService(context, spec));
  },
  invariants: () => [fewAreIsolated],
};
