/** Tasks as people call them, and the nodes that a step is about. */
import type { Delta } from '#control-plane/store/records.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Task } from '#proto/model/task.ts';

/** With a node on which a task has changed. */
export function nodesOf({ changes }: Delta): Set<NodeId> {
  const nodes = new Set<NodeId>();
  for (const change of changes) if (change.table === 'task' && change.after?.nodeId) nodes.add(change.after.nodeId);
  return nodes;
}

/** As people call it, and its id. */
export function nameOf(task: Task): string {
  return `${task.serviceName}.${task.slot} ${task.id}`;
}
