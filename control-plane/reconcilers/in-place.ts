/**
 * Limits that change under running tasks. A revision that differs from the one before in nothing but limits, reservations,
 * controls and bandwidth goes on with its processes: it has its `origin`, and tasks of one origin may adopt each other's revision.
 */
import { shortOf } from '#control-plane/scheduler/filters.ts';
import type { Ledger, Usage } from '#control-plane/scheduler/ledger.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { noControls } from '#proto/model/controls.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import { noResources } from '#proto/model/resources.ts';
import { defaults, type Revision, type Service, type TaskTemplate } from '#proto/model/service.ts';
import { isWanted, type Task } from '#proto/model/task.ts';
import { same } from './same.ts';

/** True where a task of the one template becomes one of the other while its process goes on. */
export function changesInPlace(before: TaskTemplate, after: TaskTemplate): boolean {
  return !same(before, after) && same(fixedOf(before), fixedOf(after));
}

/** What a process keeps for its life; things that are counted and named are given with the node. */
function fixedOf(template: TaskTemplate): TaskTemplate {
  const reservations = { ...noResources, generic: template.reservations.generic };
  return { ...template, limits: noResources, reservations, controls: noControls, bandwidth: defaults.bandwidth };
}

/** Tasks as they go on under the service's revision, or why one of its origin cannot; none while a rollout is paused. */
export function* adoptions(
  { id, revision, rollout }: Service,
  tasks: Iterable<Task>,
  snapshot: Snapshot,
  ledger: Ledger,
  now: number,
): Iterable<readonly [TaskId, Task | string]> {
  const to = rollout.state === 'paused' ? undefined : snapshot.revisionOf(id, revision);
  if (!to) return;
  for (const task of tasks) {
    if (task.revision === revision) continue;
    const from = snapshot.revisionOf(id, task.revision);
    const adopted = adopt(task, from, to, ledger.usageOf(task.nodeId as NodeId), now);
    if (adopted !== undefined) yield [task.id, adopted];
  }
}

/** `usage`: of its node; undefined: it has none. A text: why it is to be replaced; undefined: as any task of another revision. */
function adopt(
  task: Task,
  from: Revision | undefined,
  to: Revision,
  usage: Usage | undefined,
  now: number,
): Task | string | undefined {
  if (!isWanted(task) || from?.origin !== to.origin) return undefined;
  const { reservations } = to.template;
  const short = usage && shortOf(moreOf(task, to.template), usage);
  if (short) return `node ${task.nodeName} has no room for it any more: it ${short}`;
  return { ...task, revision: to.number, reservations, adoptedAtMs: now };
}

/** What its new reservations take beyond those it has. */
function moreOf({ reservations: before }: Task, { reservations: after }: TaskTemplate) {
  return {
    cpuMillis: after.cpuMillis - before.cpuMillis,
    memoryBytes: after.memoryBytes - before.memoryBytes,
    pids: after.pids - before.pids,
    generic: [],
  };
}
