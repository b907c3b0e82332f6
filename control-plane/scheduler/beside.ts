/** What a task holds of its node that is only prepared there, beside the one whose room it gets: no more than it asks beyond that. */
import type { TaskId } from '#proto/model/ids.ts';
import type { GenericResource } from '#proto/model/resources.ts';
import { occupiesNode, type Task, waitsForSeat } from '#proto/model/task.ts';

/** The task as it counts on its node. `known`: whoever is there. */
export function besideForerunner(task: Task, known: (id: TaskId) => Task | undefined): Task {
  if (!waitsForSeat(task) || task.successorOf === '') return task;
  const before = known(task.successorOf);
  if (!before || before.nodeId !== task.nodeId || !occupiesNode(before)) return task;
  const [wants, has] = [task.reservations, before.reservations];
  return {
    ...task,
    reservations: {
      ...wants,
      cpuMillis: Math.max(0, wants.cpuMillis - has.cpuMillis),
      memoryBytes: Math.max(0, wants.memoryBytes - has.memoryBytes),
      pids: Math.max(0, wants.pids - has.pids),
    },
    generic: task.generic.flatMap((one) => more(one, before.generic)),
  };
}

/** What of a kind it is given beyond what the other one has. */
function more({ kind, count, names }: GenericResource, before: readonly GenericResource[]): GenericResource[] {
  const has = before.find((one) => one.kind === kind);
  if (!has) return [{ kind, count, names }];
  const others = names.filter((name) => !has.names.includes(name));
  const left = names.length > 0 ? others.length : Math.max(0, count - has.count);
  return left > 0 ? [{ kind, count: left, names: others }] : [];
}
