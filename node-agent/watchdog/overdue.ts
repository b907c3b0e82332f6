/** Kills the singletons that the lease is over for, by the files alone: who looks needs to have been told nothing. */
import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#proto/kernel/clock.ts';
import { isId, type TaskId, taskId } from '#proto/model/ids.ts';
import type { Cgroups } from '../runtime/cgroup.ts';
import { dueAt } from './lease.ts';
import type { LeaseFile } from './lease-file.ts';

export interface OverdueParts {
  readonly clock: Pick<Clock, 'boottime'>;
  readonly cgroups: Pick<Cgroups, 'processes' | 'kill'>;
  /** The control group of a task, in every hierarchy. */
  readonly groupOf: (task: TaskId) => string;
  readonly lease: LeaseFile;
  /** Where each singleton has a file, for root alone. */
  readonly directory: string;
}

/** How often everybody looks. */
export const lookEveryMs = 100;

/** Singletons that were armed on this node and not forgotten; none where there is no such directory. */
export function armedIn(directory: string): TaskId[] {
  try {
    return readdirSync(directory).filter(isId).map(taskId);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** Where it is written why the lease ended a task. */
export function killedPath(directory: string, task: TaskId): string {
  return join(directory, `${task}.killed`);
}

/** The tasks of which something was left to kill. `armed`: those that are known without their files. */
export function killOverdue(
  { clock, cgroups, groupOf, lease, directory }: OverdueParts,
  armed: Iterable<TaskId> = [],
): TaskId[] {
  if (dueAt(lease.untilMs(), clock.boottime()) !== 'kill') return [];
  const all = new Set([...armedIn(directory), ...armed]);
  const left = [...all].filter((task) => cgroups.processes(groupOf(task)).length > 0);
  for (const task of left) {
    note(killedPath(directory, task));
    cgroups.kill(groupOf(task));
  }
  return left;
}

/** Where it cannot be written its agent reports a task that was killed. */
function note(path: string): void {
  try {
    writeFileSync(path, 'its node was not heard by the control plane, and its lease ended\n');
  } catch {
    // What matters is that it ended.
  }
}
