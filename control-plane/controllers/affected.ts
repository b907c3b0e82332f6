/** Which services a change of a node concerns, in an order that depends on the records alone: plans look at them in the same. Pure. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { NodeId, ServiceId } from '#proto/model/ids.ts';

/** Those with tasks on it. */
export function affectedBy(snapshot: Snapshot, node: NodeId): readonly ServiceId[] {
  return [...new Set([...snapshot.tasksOnNode(node)].map(({ serviceId }) => serviceId))].sort();
}
