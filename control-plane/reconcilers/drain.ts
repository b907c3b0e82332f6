/** Which tasks must leave their nodes: the operator drains the node, or its labels no longer meet the constraints. */
import { mayStay, type Request } from '#control-plane/scheduler/filters.ts';
import type { Node } from '#proto/model/node.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';

/** Why the task may not stay where it is; empty when it may, or is nowhere. */
export function mustLeave(request: Request, task: Task, node: Node | undefined): string {
  return node && occupiesNode(task) ? mayStay(request, node) : '';
}
