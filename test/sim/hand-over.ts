/** What must hold of seats that are handed over: nobody who runs goes before what follows is there, and who was prepared runs alone. */
import { assert } from '#proto/kernel/errors.ts';
import { taskName } from '#proto/model/ids.ts';
import { compareStates, isAbsent, isActive, isIsolated, occupiesNode, type Task } from '#proto/model/task.ts';
import type { Invariant } from './invariants.ts';
import { isTurn, seatOf } from './rollouts.ts';
import type { World } from './world.ts';

export const imagesComeFirst: Invariant = {
  name: 'an update stops nothing that runs before what follows it is prepared on its node',
  step({ changes }, world) {
    for (const { table, before, after } of changes) {
      if (table !== 'task' || !before || !after || before.state !== 'running') continue;
      if (before.wanted !== 'running' || after.wanted === 'running' || !isActive(before)) continue;
      const service = world.truth.service(after.serviceId);
      if (!service || !isTurn(service, after)) continue;
      const next = othersOf(world, after).filter(
        (other) => isActive(other) && compareStates(other.state, 'ready') >= 0,
      );
      assert(next.length > 0, `${taskName(after)} on ${after.nodeName} is stopped for what is not there: ${after.why}`);
    }
  },
};

export const preparedRunAlone: Invariant = {
  name: 'what is prepared for a seat runs when nobody is left there',
  step({ changes }, world) {
    for (const { table, before, after } of changes) {
      if (table !== 'task' || before?.wanted !== 'ready' || after?.wanted !== 'running') continue;
      const left = othersOf(world, after).find(
        (other) => occupiesNode(other) && !isAbsent(other) && !(isIsolated(other) && other.nodeId !== after.nodeId),
      );
      assert(!left, `${taskName(after)} is to run beside ${left?.id}, which is ${left?.state}`);
    }
  },
};

function othersOf({ truth }: World, task: Task): Task[] {
  return [...truth.tasksOfService(task.serviceId)].filter(
    (other) => other.id !== task.id && seatOf(other) === seatOf(task),
  );
}
