/** `gantry release`: isolated tasks have been looked at for long enough. */
import { put } from '#control-plane/reconcilers/service-changes.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ChangeResponse, ReleaseTaskRequest } from '#proto/gen/gantry/v1/operator.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import { isIsolated, type Task } from '#proto/model/task.ts';
import { findService, findTask } from './names.ts';
import { commitWish, type OperatorParts } from './parts.ts';

/** It is stopped as any task is. Faults: `not-found`, `invalid` (ambiguous), `precondition` (it is not isolated). */
export async function releaseTask(
  parts: OperatorParts,
  { name }: ReleaseTaskRequest,
  by: string,
): Promise<ChangeResponse> {
  let message = '';
  const revision = await commitWish(parts, (context) => {
    const task = isolatedTask(context.snapshot, name);
    message = `released ${nameOf(task)} on ${task.nodeName}: it stops`;
    const why = `released from isolation by ${by || 'an operator'}`;
    return [put(context, 'task', task.id, { ...task, wanted: 'shutdown', why })];
  });
  return { revision, serviceIds: [], names: [], message };
}

/** By the start of its id; or the one that is isolated of this service, or of this seat of it. */
function isolatedTask(snapshot: Snapshot, text: string): Task {
  const all = [...snapshot.all('task')].filter(isIsolated);
  const found = all.filter((task) => isCalled(task, text));
  if (found.length === 1) return found[0]!;
  if (found.length > 1)
    throw new Fault('invalid', `"${text}" may mean ${found.map(nameOf).sort().join(' or ')}`, {
      remedy: 'write the start of its id',
    });
  const remedy = all.length > 0 ? `isolated: ${all.map(nameOf).sort().slice(0, 10).join(', ')}` : 'no task is isolated';
  throw new Fault('precondition', `${described(snapshot, text)} is not isolated`, { remedy });
}

function isCalled(task: Task, text: string): boolean {
  const seat = taskName(task).slice(task.serviceName.length);
  const service = qualifiedName(task.project, task.serviceName);
  const names = [service, task.serviceName, `${service}${seat}`, `${task.serviceName}${seat}`];
  return names.includes(text) || (text.length >= 4 && task.id.startsWith(text));
}

/** Fault `not-found`: nothing is called so. */
function described(snapshot: Snapshot, text: string): string {
  try {
    return nameOf(findTask(snapshot, text));
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    return `any task of ${findService(snapshot, text).spec.name}`;
  }
}

function nameOf(task: Task): string {
  return `${taskName(task)} (${task.id.slice(0, 5)})`;
}
