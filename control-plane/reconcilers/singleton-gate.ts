/** The one gate of singletons: no task of one runs while another one may. It is asked before a task is given a node to run on, and before one that was prepared may run. */
import type { Service } from '#proto/model/service.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';

/** Who must have ended before `next`, which may be one of the tasks, runs; undefined: nobody. */
export function singletonBefore({ spec }: Service, tasks: Iterable<Task>, next?: Task): Task | undefined {
  const others = [...tasks].filter((task) => task.id !== next?.id && occupiesNode(task));
  return spec.failover === 'singleton' ? others[0] : others.find(({ singleton }) => singleton);
}
