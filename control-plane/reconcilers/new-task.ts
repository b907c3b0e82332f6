/** A task as it begins: it is nowhere yet. */
import { hostPortsOf } from '#control-plane/scheduler/filters.ts';
import { taskId } from '#proto/model/ids.ts';
import { noResources } from '#proto/model/resources.ts';
import type { Revision, Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { latestOf, type Opinion, seatedAtMs } from './seats.ts';

/** `now`: wall clock, ms. */
export function newTask(
  { id, spec }: Service,
  record: Revision | undefined,
  { seat, revision, startAfterMs, why, after }: Extract<Opinion, { kind: 'start' }>,
  freshId: string,
  now: number,
): Task {
  // Behind its forerunner even if the clock was set back: the order of creation is the order of a seat's history.
  const latest = latestOf(seat);
  const createdAtMs = Math.max(now, latest ? seatedAtMs(latest) + 1 : 0);
  return {
    id: taskId(freshId),
    serviceId: id,
    project: spec.project,
    serviceName: spec.name,
    slot: seat.slot,
    nodeId: '',
    nodeName: seat.nodeName,
    revision,
    wanted: after ? 'ready' : 'running',
    state: 'pending',
    message: '',
    error: '',
    why,
    address: '',
    addresses: [],
    createdAtMs,
    stateAtMs: now,
    startedAtMs: 0,
    finishedAtMs: 0,
    exitCode: 0,
    oomKilled: false,
    health: '',
    pid: 0,
    startAfterMs,
    imageDigest: record?.imageDigest ?? '',
    hostPorts: hostPortsOf(spec),
    reservations: record?.template.reservations ?? noResources,
    iteration: seat.iteration ?? 0,
    generic: [],
    successorOf: after?.id ?? '',
    isolatedUntilMs: 0,
    isolationRefused: false,
    adoptedAtMs: 0,
    duplicate: false,
    singleton: false,
    returnedAtMs: 0,
  };
}
