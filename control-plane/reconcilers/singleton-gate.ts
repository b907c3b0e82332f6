/** The one gate of singletons: no task of one runs while another one may. It is asked before a task is given a node to run on, and before one that was prepared may run. */
import type { Service } from '#proto/model/service.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';

/** Who must have ended before another task of the service runs: those of them beside which none may. */
export function singletonsOf({ spec }: Service, tasks: Iterable<Task>): Task[] {
  const isOne = (task: Task) => (spec.failover === 'singleton' || task.singleton) && occupiesNode(task);
  return [...tasks].filter(isOne);
}
