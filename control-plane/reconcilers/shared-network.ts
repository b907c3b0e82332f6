/** `network_mode: service:NAME`: a task has the network of the task of the same seat of another service, and goes where and when that one goes. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { type NetworkMode, sharedNetworkOf } from '#proto/model/network.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { isAbsent, isActive, occupiesNode, type Task, waitsForSeat } from '#proto/model/task.ts';
import { inSeatOrder } from './seats.ts';

/** The task that another one's network is, or why there is none yet; undefined: the mode names no service. */
export function networkOwner(
  snapshot: Snapshot,
  project: string,
  mode: NetworkMode,
  seat: Pick<Task, 'slot' | 'nodeName'>,
): Task | string | undefined {
  const name = sharedNetworkOf(mode);
  if (name === undefined) return undefined;
  const service = snapshot.serviceNamed(project, name);
  if (!service || service.removing) return `there is no service ${name}, whose network it is to have`;
  const owners: Task[] = [];
  for (const task of snapshot.tasksOfService(service.id))
    if (isActive(task) && occupiesNode(task) && sameSeat(task, seat) && !awaitsAddress(task)) owners.push(task);
  // Of an old and a new one the new one: the old one is about to go, and whoever shares its network with it. Not while that is only prepared.
  owners.sort(inSeatOrder);
  const owner = owners.findLast(({ wanted }) => wanted === 'running') ?? owners.at(-1);
  return owner ?? `waits for task ${name}.${seat.slot || seat.nodeName}, whose network it is to have`;
}

/** Why a task that has another one's network may not stay; empty: it may. */
export function lostNetwork(snapshot: Snapshot, mode: NetworkMode, task: Task): string {
  const name = sharedNetworkOf(mode);
  if (name === undefined || !occupiesNode(task)) return '';
  const service = snapshot.serviceNamed(task.project, name);
  for (const other of service ? snapshot.tasksOfService(service.id) : [])
    if (sameSeat(other, task) && isActive(other) && other.nodeId === task.nodeId && other.address === task.address)
      return '';
  return `task ${name}.${task.slot || task.nodeName}, whose network it has, is no longer there`;
}

/** The one whose network it has is absent too, on the same node. */
export function awaitsOwner(snapshot: Snapshot, mode: NetworkMode, task: Task): boolean {
  const name = sharedNetworkOf(mode);
  const service = name === undefined ? undefined : snapshot.serviceNamed(task.project, name);
  for (const other of service ? snapshot.tasksOfService(service.id) : [])
    if (sameSeat(other, task) && isAbsent(other) && other.nodeId === task.nodeId && other.address === task.address)
      return true;
  return false;
}

/** `project/name` of the service whose tasks' networks its tasks have. */
export function ownerOf({ project, template }: ServiceSpec): string | undefined {
  const name = sharedNetworkOf(template.networkMode);
  return name === undefined ? undefined : `${project}/${name}`;
}

/** It is prepared as far as that goes without one. */
function awaitsAddress(task: Task): boolean {
  return waitsForSeat(task) && task.address === '';
}

function sameSeat(a: Pick<Task, 'slot' | 'nodeName'>, b: Pick<Task, 'slot' | 'nodeName'>): boolean {
  return a.slot === b.slot && (a.slot > 0 || a.nodeName === b.nodeName);
}
