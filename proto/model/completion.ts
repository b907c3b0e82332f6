/** When the work of a service is done. */
import { isJob, isPerNode, latestIteration } from './job.ts';
import type { Service } from './service.ts';
import type { Task } from './task.ts';

/**
 * Its work is done: a job's newest iteration is complete; of another service every slot's last task has completed, so that
 * nothing more is to come. What `service_completed_successfully` means. `tasks`: all of the service.
 */
export function hasCompleted(service: Service, tasks: Iterable<Task>): boolean {
  if (isJob(service.spec)) return latestIteration(service)?.state === 'complete';
  const last = new Map<string, Task>();
  for (const task of tasks) {
    const seat = task.slot > 0 ? String(task.slot) : task.nodeName;
    const before = last.get(seat);
    if (!before || before.createdAtMs < task.createdAtMs) last.set(seat, task);
  }
  const wanted = isPerNode(service.spec) ? 1 : service.spec.replicas;
  if (service.spec.restart.condition === 'any' || last.size < Math.max(1, wanted)) return false;
  return [...last.values()].every(({ state, revision }) => state === 'complete' && revision === service.revision);
}
