/** What is planned for tasks, a line for each seat: one that stops here and starts there moves. Pure. */
import type { PlannedTask } from '#proto/gen/gantry/v1/operator.ts';

export interface Fate {
  readonly text: string;
  readonly reason: string;
}

/** `service`: its name; in the order of the plan. */
export function fates(service: string, tasks: readonly PlannedTask[]): Fate[] {
  const starts = new Map<number, PlannedTask[]>();
  for (const task of tasks)
    if (task.action === 'start' && task.slot > 0) starts.set(task.slot, [...(starts.get(task.slot) ?? []), task]);
  const successors = new Map<PlannedTask, PlannedTask>();
  for (const task of tasks) {
    const next = task.action === 'stop' ? starts.get(task.slot)?.shift() : undefined;
    if (next) successors.set(task, next);
  }
  const told = new Set(successors.values());
  return tasks.flatMap((task): Fate[] => {
    if (told.has(task)) return [];
    const seat = task.slot > 0 ? `${service}.${task.slot}` : service;
    const next = successors.get(task);
    if (!next) {
      const waits = task.action === 'start' && task.node === '';
      const where = task.node === '' ? '' : ` on ${task.node}`;
      return [{ text: `${waits ? 'waits' : task.action} ${seat}${where}`, reason: task.reason }];
    }
    if (next.node === '')
      return [{ text: `lose ${seat} on ${task.node}`, reason: `${task.reason}; it waits: ${next.reason}` }];
    if (next.node === task.node) return [{ text: `replace ${seat} on ${task.node}`, reason: task.reason }];
    return [{ text: `move ${seat} from ${task.node} to ${next.node}`, reason: task.reason }];
  });
}
