/** Why a task is where it is, or nowhere: the scheduler's table and the seat's history. */
import { explainTask } from '#control-plane/controllers/plan.ts';
import { mayStart } from '#control-plane/reconcilers/start-order.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ExplainRequest, ExplainResponse } from '#proto/gen/gantry/v1/operator.ts';
import { taskName } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { exitWords, isIsolated, isWanted, type Task } from '#proto/model/task.ts';
import { checksOf } from './checks.ts';
import { findAny, findTask } from './names.ts';
import type { OperatorParts } from './parts.ts';

/** Faults: `not-found`, `invalid` (ambiguous). */
export async function explain(parts: OperatorParts, request: ExplainRequest): Promise<ExplainResponse> {
  const { store, clock } = parts;
  const { snapshot } = store;
  const found = findAny(snapshot, request.name);
  if ('node' in found) return explainNode(snapshot, found.node);
  const task = 'task' in found ? found.task : findTask(snapshot, request.name);
  const response = explained(snapshot, task, clock.now());
  const isWell = task.health === '' || task.health === 'healthy';
  if (task.state !== 'running' || task.nodeId === '' || (isWell && !isIsolated(task))) return response;
  return { ...response, checks: await checksOf(parts, task.nodeId, task.id) };
}

function explained(snapshot: Snapshot, task: Task, now: number): ExplainResponse {
  const { rules, rows, summary } = explainTask(snapshot, task);
  return {
    summary: `${summary}${heldBack(snapshot, task, now)}`,
    rules: [...rules],
    nodes: rows.map(({ node, verdicts, chosen, rank }) => ({ node, verdicts: [...verdicts], chosen, rank })),
    history: historyOf(snapshot, task),
    checks: [],
  };
}

/** Why its successor of a newer revision has not come yet; a pending task says itself what it waits for. */
function heldBack(snapshot: Snapshot, task: Task, now: number): string {
  const service = snapshot.service(task.serviceId);
  if (!service || task.nodeId === '' || task.revision === service.revision) return '';
  const standing = mayStart(snapshot, service, snapshot.tasksOfService(service.id), now);
  return standing.at === 'holds' ? '' : `; revision ${service.revision}, which is to replace it, ${standing.why}`;
}

function explainNode(snapshot: Snapshot, node: Node): ExplainResponse {
  const tasks = [...snapshot.tasksOnNode(node.id)].filter(isWanted);
  return {
    summary: `Node ${node.name} is ${node.state}${node.message ? `: ${node.message}` : ''}; availability ${node.availability}. It has ${tasks.length} tasks.`,
    rules: [],
    nodes: [],
    checks: [],
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
  // An error has the exit code in it.
  const exit =
    task.error === '' && task.finishedAtMs > 0 && task.state !== 'rejected' && task.state !== 'orphaned'
      ? `, ${exitWords(task.exitCode)}`
      : '';
  return `${task.state}${exit}${reason ? `: ${reason}` : ''}`;
}

function stamp(ms: number): string {
  return new Date(ms).toISOString().slice(0, 19).replace('T', ' ');
}
