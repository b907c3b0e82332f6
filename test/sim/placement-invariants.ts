/** What must hold of tasks that leave for others, and of those that are moved to even out nodes. */
import { assert } from '#proto/kernel/errors.ts';
import { rebalanceDefaults } from '#proto/model/cluster.ts';
import { taskName } from '#proto/model/ids.ts';
import type { Invariant } from './invariants.ts';

export const nobodyLeavesForLess: Invariant = {
  name: 'a task is preempted only for one of higher priority',
  step({ changes }, { truth }) {
    for (const { table, before, after } of changes) {
      if (table !== 'task' || !after || before?.wanted === after.wanted) continue;
      const priority = Number(/^preempted by .* \(priority (\d+)\)$/.exec(after.why)?.[1] ?? Number.POSITIVE_INFINITY);
      const own = truth.service(after.serviceId)?.spec.priority ?? 0;
      assert(priority > own, `${taskName(after)} of priority ${own} was ${after.why}`);
    }
  },
};

/** What evens out nodes begins with a task that is up, and goes on slowly. */
export function movesKeepTheirBudget(): Invariant {
  const begun: { readonly atMs: number; readonly epoch: number }[] = [];
  return {
    name: 'no task is moved before its successor is there, nor more in a minute than allowed',
    step({ changes }, { clock, epoch, truth }) {
      const now = clock.monotonic();
      for (const { table, before, after } of changes) {
        if (table !== 'task' || before || !after || after.successorOf === '' || after.wanted === 'ready') continue;
        const old = truth.task(after.successorOf);
        assert(old?.wanted === 'running' && old.slot === after.slot, `${taskName(after)} takes over from nobody`);
        begun.push({ atMs: now, epoch });
        const recent = begun.filter((one) => one.epoch === epoch && one.atMs > now - 60_000);
        const most = rebalanceDefaults.rebalancePerMinute + 1;
        assert(recent.length <= most, `${recent.length} tasks were moved within a minute`);
      }
    },
  };
}
