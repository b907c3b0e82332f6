/** Why a task is where it is, or nowhere: the scheduler's table and the seat's history. */
import { explain as table } from '#control-plane/scheduler/explain.ts';
import { requestOf } from '#control-plane/scheduler/filters.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ExplainRequest, ExplainResponse } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { taskName } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { isActive, occupiesNode, type Task } from '#proto/model/task.ts';
import { findAny, findTask } from './names.ts';
import type { OperatorParts } from './parts.ts';

/** Faults: `not-found`, `invalid` (ambiguous). */
export function explain({ store }: OperatorParts, request: ExplainRequest): ExplainResponse {
  const { snapshot } = store;
  const found = findAny(snapshot, request.name);
  if ('node' in found) return explainNode(snapshot, found.node);
  return explainTask(snapshot, 'task' in found ? found.task : findTask(snapshot, request.name));
}

function explainTask(snapshot: Snapshot, task: Task): ExplainResponse {
  const service = snapshot.service(task.serviceId);
  const template = snapshot.revisionOf(task.serviceId, task.revision)?.template ?? service?.spec.template;
  if (!service || !template) throw new Fault('not-found', `the service of ${taskName(task)} is gone`);
  const ledger = Ledger.of(snapshot);
  // Counted as if it were not there: its own share must not speak against the node it is on.
  if (occupiesNode(task)) ledger.setTask(task.id, undefined);
  const request = requestOf(service.id, service.spec, template);
  const { rules, rows, summary } = table(ledger, request, task.nodeId || undefined);
  return {
    summary: `${taskName(task)} is ${stateOf(task)}${task.nodeId ? ` on ${task.nodeName}` : ''}. ${task.nodeId ? `It was placed there: ${task.why || 'to fill the seat'}` : summary}.`,
    rules: [...rules],
    nodes: rows.map(({ node, verdicts, chosen, rank }) => ({ node, verdicts: [...verdicts], chosen, rank })),
    history: historyOf(snapshot, task),
  };
}

function explainNode(snapshot: Snapshot, node: Node): ExplainResponse {
  const tasks = [...snapshot.tasksOnNode(node.id)].filter(isActive);
  return {
    summary: `Node ${node.name} is ${node.state} and ${node.availability}${node.message ? `: ${node.message}` : ''}. It has ${tasks.length} tasks.`,
    rules: [],
    nodes: [],
    history: tasks
      .sort((a, b) => a.createdAtMs - b.createdAtMs)
      .map((task) => `${stamp(task.createdAtMs)} ${taskName(task)}: ${task.why || 'placed here'}`),
  };
}

/** The tasks that had this seat, oldest first. */
function historyOf(snapshot: Snapshot, task: Task): string[] {
  return [...snapshot.tasksOfService(task.serviceId)]
    .filter((other) => other.slot === task.slot && (task.slot > 0 || other.nodeId === task.nodeId))
    .sort((a, b) => a.createdAtMs - b.createdAtMs)
    .map((other) => {
      const where = other.nodeName ? ` on ${other.nodeName}` : '';
      const why = other.why ? ` (${other.why})` : '';
      return `${stamp(other.createdAtMs)} ${other.id.slice(0, 8)}${where}${why}: ${stateOf(other)} since ${stamp(other.stateAtMs)}`;
    });
}

function stateOf(task: Task): string {
  const reason = task.error || (task.state === 'pending' ? task.message : '');
  const exit = task.finishedAtMs > 0 && task.state !== 'rejected' ? `, exit code ${task.exitCode}` : '';
  return `${task.state}${exit}${reason ? `: ${reason}` : ''}`;
}

function stamp(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
}
