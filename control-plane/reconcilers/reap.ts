/** How much history is kept: a few ended tasks for each seat, a few revisions for each service. */
import type { Change } from '#control-plane/store/records.ts';
import { revisionKey, type Snapshot } from '#control-plane/store/snapshot.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import type { Revision, Service, Version } from '#proto/model/service.ts';
import { isTerminal, type Task } from '#proto/model/task.ts';
import { isUnderWay } from './iterations.ts';
import { type Advice, never, noAdvice, type Opinion, type Seat } from './seats.ts';
import { reapVersions } from './versions.ts';

/** Ended tasks kept for a seat; more where the restart policy counts further. */
export const keptTasks = 5;
export const keptRevisions = 10;
/** Nothing younger is reaped: its address still rests. */
export const restMs = 60_000;
/** The history of a seat that the service no longer has. */
export const formerSeatMs = 600_000;

/** Ended tasks that may be forgotten now, the oldest first. `wanted`: seats that the service still has; `counts`: whose number matters: they go last. */
export function reapTasks(
  service: Service,
  seats: Iterable<Seat>,
  wanted: ReadonlySet<string>,
  now: number,
  counts: (task: Task) => boolean = () => false,
): Advice {
  const keep = Math.max(keptTasks, service.spec.restart.maxAttempts + 1);
  const opinions: Opinion[] = [];
  let wakeAtMs = never;
  for (const seat of seats) {
    const isWanted = wanted.has(seatKey(seat));
    if (isWanted && seat.tasks.length <= keep) continue;
    const ended = seat.tasks.filter((task) => isTerminal(task.state));
    const inTurn = [...ended.filter((task) => !counts(task)), ...ended.filter(counts)];
    const surplus = isWanted ? inTurn.slice(0, Math.max(0, ended.length - keep)) : ended;
    for (const task of surplus) {
      const dueAtMs = task.stateAtMs + (isWanted ? restMs : formerSeatMs);
      if (dueAtMs <= now) opinions.push({ kind: 'forget', task, why: 'old history' });
      else wakeAtMs = Math.min(wakeAtMs, dueAtMs);
    }
  }
  return opinions.length === 0 && wakeAtMs === never ? noAdvice : { opinions, wakeAtMs };
}

export function seatKey(seat: Seat): string {
  return seat.slot > 0 ? String(seat.slot) : seat.nodeId || seat.nodeName;
}

/** Takes versions and revisions away that nobody needs any more. */
export function reapHistory(snapshot: Snapshot, service: Service, tasks: Iterable<Task>): Change[] {
  const versions = [...snapshot.versionsOfService(service.id)];
  const old = new Set(reapVersions(service, versions));
  const shown = versions.filter((version) => !old.has(version));
  const revisions = reapRevisions(service, snapshot.revisionsOfService(service.id), tasks, shown);
  return [
    ...[...old].map((version) => forget(snapshot, 'version', version)),
    ...revisions.map((revision) => forget(snapshot, 'revision', revision)),
  ];
}

/** All of it, of a service that goes, or that is gone and does not come back. */
export function forgetHistory(snapshot: Snapshot, id: ServiceId): Change[] {
  return [
    ...[...snapshot.revisionsOfService(id)].map((revision) => forget(snapshot, 'revision', revision)),
    ...[...snapshot.versionsOfService(id)].map((version) => forget(snapshot, 'version', version)),
  ];
}

function forget(snapshot: Snapshot, table: 'version' | 'revision', record: Version | Revision): Change {
  const key = revisionKey(record.serviceId, record.number);
  return { table, key, value: undefined, expect: snapshot.get(table, key)?.modRevision ?? 0 };
}

/** Revisions that nobody can come back to: neither current nor previous, of no task and of no version that history shows. */
function reapRevisions(
  service: Service,
  revisions: Iterable<Revision>,
  tasks: Iterable<Task>,
  shown: readonly Version[],
): Revision[] {
  const all = [...revisions];
  if (all.length <= keptRevisions) return [];
  const used = new Set([service.revision, service.previousRevision]);
  for (const task of tasks) used.add(task.revision);
  for (const iteration of service.job?.iterations ?? []) if (isUnderWay(iteration)) used.add(iteration.revision);
  for (const { revision } of shown) used.add(revision);
  return all
    .sort((a, b) => b.number - a.number)
    .slice(keptRevisions)
    .filter((revision) => !used.has(revision.number));
}
