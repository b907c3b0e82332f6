/** Why a task is where it is, or nowhere: the scheduler's table and the seat's history. */
import { explainTask } from '#control-plane/controllers/plan.ts';
import { judgeClocks } from '#control-plane/reconcilers/clocks.ts';
import { passedOverMs } from '#control-plane/reconcilers/flapping.ts';
import { type KernelSeen, probeWords } from '#control-plane/reconcilers/kernel-verdict.ts';
import { type AgentSeen, silenceMs, suspectMs } from '#control-plane/reconcilers/node-health.ts';
import { mayStart } from '#control-plane/reconcilers/start-order.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ExplainRequest, ExplainResponse } from '#proto/gen/gantry/v1/operator.ts';
import { type NodeId, taskName } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { exitWords, isIsolated, isWanted, type Task } from '#proto/model/task.ts';
import { offWords } from '#proto/model/wall-clock.ts';
import { checksOf } from './checks.ts';
import { findAny, findTask } from './names.ts';
import type { OperatorParts } from './parts.ts';

/** Faults: `not-found`, `invalid` (ambiguous). */
export async function explain(parts: OperatorParts, request: ExplainRequest): Promise<ExplainResponse> {
  const { store, clock } = parts;
  const { snapshot } = store;
  const found = findAny(snapshot, request.name);
  if ('node' in found) return explainNodeByLeader(parts, request, found.node);
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

/** What this leader knows of the node's life: how it was heard, who probed it, and what would change the verdict. */
function healthOf({ store, clock, liveness, leader }: OperatorParts, node: Node): string[] {
  if (leader()) return ['Another manager leads and hears the nodes, and does not answer: see gantry info.'];
  const now = clock.monotonic();
  const ago = (ms: number) => `${((now - ms) / 1_000).toFixed(1)} s ago`;
  const last = liveness.lastBeatAt(node.id);
  const agent = liveness.agentOf(node.id);
  const hungUpAtMs = liveness.hungUpAt(node.id);
  const kernel = liveness.kernelOf(node.id);
  const { round } = kernel;
  const nameOf = (id: NodeId) => store.snapshot.node(id)?.name ?? id;
  const isHeard = last !== undefined && now - last < silenceMs;
  return [
    last === undefined ? 'Its beats have not been heard since this leader began.' : `Last beat ${ago(last)}.`,
    ...(hungUpAtMs === undefined ? [] : [`The connection of its beats was closed ${ago(hungUpAtMs)}.`]),
    ...(agent
      ? [
          `Its watchdog ${isHeard ? 'says' : 'said last'} that the agent is ${agent.condition}, since ${ago(agent.sinceMs)}.`,
        ]
      : []),
    `Kernel: ${probeWords(kernel, node.answersProbes ?? false, nameOf)}${round ? ` (${ago(round.askedAtMs)})` : ''}.`,
    ...clockOf(store, liveness),
    ...whereToLook(agent, isHeard, hostSince(kernel, last ?? Number.NEGATIVE_INFINITY)),
    isHeard
      ? `What would change it: ${suspectMs / 1_000} s without a beat, and no answer of its kernel to us and to peers.`
      : 'What would change it: a beat of it.',
    ...flappingOf(store.snapshot, node),
  ];
}

/** Whoever does not trust our certificate hangs up without a word: that is the reason only its own log says. */
function whereToLook(agent: AgentSeen | undefined, isHeard: boolean, host: 'answers' | 'silent' | 'untold'): string[] {
  const log = 'the log of its agent says which (journalctl -u gantry-agent)';
  if (isHeard)
    return agent?.condition === 'unconnected'
      ? [`Its agent runs and has no session: it reaches no manager, or does not trust the cluster's CA; ${log}.`]
      : [];
  if (host === 'silent') return [];
  return [
    `${host === 'answers' ? 'Its host answers' : 'If its host is up'}, agent and watchdog do not run, reach no manager, or do not trust the cluster's CA; ${log}.`,
  ];
}

/** Whether anybody has heard its kernel, who asked it after its last beat. */
function hostSince({ round }: KernelSeen, lastMs: number): 'answers' | 'silent' | 'untold' {
  if (!round || round.askedAtMs < lastMs) return 'untold';
  const said = [round.leader, ...round.peers.values()];
  return said.includes(true) ? 'answers' : said.includes(false) ? 'silent' : 'untold';
}

/** What of clocks is not the node's own fault, and so not in its record. */
function clockOf({ leadership }: OperatorParts['store'], liveness: OperatorParts['liveness']): string[] {
  const { ownMs } = judgeClocks(liveness.clocks(), leadership?.replica ?? '');
  return ownMs === 0
    ? []
    : [`The clock of ${leadership?.replica}, which leads, is ${offWords(ownMs)} those of most hosts.`];
}

/** How often it was down of late, and what one time more would bring. */
function flappingOf(snapshot: Snapshot, { flapping }: Node): string[] {
  if (!flapping) return [];
  const { verdicts, sinceMs } = flapping;
  const next = passedOverMs(verdicts + 1, snapshot.cluster?.flapDampingMs ?? 0) / 1_000;
  return [
    `Down ${verdicts} ${verdicts === 1 ? 'time' : 'times'} since ${stamp(sinceMs)}; the next time new tasks go to other nodes for ${next} s when it is back.`,
  ];
}

/** The nodes are heard by the leader; where that does not answer either, what is known here has to do. */
async function explainNodeByLeader(
  parts: OperatorParts,
  request: ExplainRequest,
  node: Node,
): Promise<ExplainResponse> {
  const door = parts.leader();
  if (!door) return explainNode(parts, node);
  return door.explain(request).catch(() => explainNode(parts, node));
}

function explainNode(parts: OperatorParts, node: Node): ExplainResponse {
  const { snapshot } = parts.store;
  const tasks = [...snapshot.tasksOnNode(node.id)].filter(isWanted);
  const count = `${tasks.length} ${tasks.length === 1 ? 'task' : 'tasks'}`;
  return {
    summary: [
      `Node ${node.name} is ${node.state}${node.stateAtMs > 0 ? ` since ${stamp(node.stateAtMs)}` : ''}${node.message ? `: ${node.message}` : ''}; availability ${node.availability}. It ${node.state === 'down' ? `had ${count}, which may come back with it` : `has ${count}`}.`,
      ...healthOf(parts, node),
    ].join('\n'),
    rules: [],
    nodes: [],
    checks: [],
    history: tasks
      .sort((a, b) => a.createdAtMs - b.createdAtMs)
      .map(
        (task) => `${stamp(task.createdAtMs)} ${taskName(task)} (${task.why || 'placed here'}): ${stateSince(task)}`,
      ),
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
      return `${stamp(other.createdAtMs)} ${other.id.slice(0, 8)}${where}${why}: ${stateSince(other)}`;
    });
}

function stateSince(task: Task): string {
  return `${stateOf(task)} since ${stamp(task.stateAtMs)}`;
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
