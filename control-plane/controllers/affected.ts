/** Which services a change of a node concerns, in an order that depends on the records alone: plans look at them in the same. Pure. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { NodeId, ServiceId } from '#proto/model/ids.ts';
import type { Task } from '#proto/model/task.ts';

/** Those with tasks on it. */
export function affectedBy(snapshot: Snapshot, node: NodeId): readonly ServiceId[] {
  return servicesOf([...snapshot.tasksOnNode(node)]);
}

/** Those with singletons on it: its lease is theirs. */
export function affectedByLease(snapshot: Snapshot, node: NodeId): readonly ServiceId[] {
  return servicesOf([...snapshot.tasksOnNode(node)].filter(({ singleton }) => singleton));
}

function servicesOf(tasks: readonly Task[]): readonly ServiceId[] {
  return [...new Set(tasks.map(({ serviceId }) => serviceId))].sort();
}
