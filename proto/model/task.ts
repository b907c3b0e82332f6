/** One run of one container. It never moves to another node, and its state only goes forward:
 *
 *   new → pending → assigned → preparing → ready → starting → running → complete | failed
 *                                                                     → shutdown  (it was told to stop)
 *        any of the above → rejected   (its node could not prepare it)
 *        any of the above → orphaned   (its node is gone)
 *        any terminal     → remove     (its record and remains may go)
 *
 * While its node is down it keeps its state and is *absent*: it may run on there, nobody hears of it, and nobody counts on it.
 */
import type { NodeId, ServiceId, TaskId } from './ids.ts';
import type { TaskAddress } from './network.ts';
import type { GenericResource, Resources } from './resources.ts';
import type { Port } from './service.ts';

export const taskStates = [
  'new',
  'pending',
  'assigned',
  'preparing',
  'ready',
  'starting',
  'running',
  'complete',
  'failed',
  'rejected',
  'shutdown',
  'orphaned',
  'remove',
] as const;
export type TaskState = (typeof taskStates)[number];

/** What the control plane wants of a task; it only goes forward too. */
export const wantedStates = ['ready', 'running', 'shutdown', 'remove'] as const;
export type WantedState = (typeof wantedStates)[number];

export type Health = '' | 'starting' | 'healthy' | 'unhealthy';

export interface Task {
  readonly id: TaskId;
  readonly serviceId: ServiceId;
  readonly project: string;
  readonly serviceName: string;
  readonly slot: number;
  /** Empty until assigned. */
  readonly nodeId: NodeId | '';
  readonly nodeName: string;
  readonly revision: number;
  readonly wanted: WantedState;
  readonly state: TaskState;
  readonly message: string;
  readonly error: string;
  readonly why: string;
  /** Primary one, shared by all its cluster networks. */
  readonly address: string;
  /** Out of the subnets of networks that have their own. */
  readonly addresses: readonly TaskAddress[];
  readonly createdAtMs: number;
  /** By the leader's clock, as all instants here but the next two, which are by the node's. */
  readonly stateAtMs: number;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly health: Health;
  readonly pid: number;
  readonly startAfterMs: number;
  readonly imageDigest: string;
  readonly hostPorts: readonly Port[];
  readonly reservations: Resources;
  /** Of a job: which of its iterations it belongs to; else 0. */
  readonly iteration: number;
  /** What it was given of its node's generic resources; none until assigned. */
  readonly generic: readonly GenericResource[];
  /** A task of its seat that is stopped when this one is up, or, where this one is wanted ready, when it is; empty: none. */
  readonly successorOf: TaskId | '';
  /** Unhealthy: it runs on for inspection until then (wall clock ms), without its seat and without calls; 0: no. */
  readonly isolatedUntilMs: number;
  /** Unhealthy, and not to be isolated: its agent ends it. */
  readonly isolationRefused: boolean;
  /** When its process went on under its revision, with other limits; 0: it was begun with it. */
  readonly adoptedAtMs: number;
  /** It is stopped because another one has its seat: both ran while the node of one was not heard. */
  readonly duplicate: boolean;
  /** Since it has its node: no other task of its service begins while this one may run, and it runs under the node's lease. */
  readonly singleton: boolean;
  /** Only while nobody knows what has become of it. */
  readonly absence?: Absence | undefined;
  /** It was absent, and has held its seat again since; 0: it never was. */
  readonly returnedAtMs: number;
}

/** Its node is down. */
export interface Absence {
  readonly sinceMs: number;
  /** Of its node then: one that comes back with another has none of its tasks any more. */
  readonly bootId: string;
}

/** What an agent says of a task. */
export interface TaskStatus {
  readonly taskId: TaskId;
  readonly state: TaskState;
  readonly message: string;
  readonly error: string;
  readonly atMs: number;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly exitCode: number;
  readonly oomKilled: boolean;
  readonly health: Health;
  readonly pid: number;
  readonly imageDigest: string;
  /** Hooks of its post_start that have succeeded: for the agent's journal alone, so that they are not run again. */
  readonly hooksRun?: number | undefined;
}

const rank = new Map<TaskState, number>(taskStates.map((state, index) => [state, index]));
const wantedRank = new Map<WantedState, number>(wantedStates.map((state, index) => [state, index]));

/** The task will never run again. */
export function isTerminal(state: TaskState): boolean {
  return rank.get(state)! > rank.get('running')!;
}

/** The law: a live state may advance to any later one; a terminal state only to `remove`. */
export function mayAdvance(from: TaskState, to: TaskState): boolean {
  if (isTerminal(from)) return to === 'remove' && from !== 'remove';
  return rank.get(to)! > rank.get(from)!;
}

/** Wanting may only go forward: what was told to stop is never told to run again. */
export function mayWant(from: WantedState, to: WantedState): boolean {
  return wantedRank.get(to)! > wantedRank.get(from)!;
}

/** It runs, or is on its way there, and nobody told it to stop. */
export function isWanted(task: Pick<Task, 'state' | 'wanted'>): boolean {
  return !isTerminal(task.state) && (task.wanted === 'running' || task.wanted === 'ready');
}

/** Its node is down: it holds what it has there, and no seat. */
export function isAbsent({ absence }: Pick<Task, 'absence'>): boolean {
  return absence !== undefined;
}

/** It runs on for inspection, while another one has its seat. */
export function isIsolated(task: Pick<Task, 'state' | 'wanted' | 'isolatedUntilMs'>): boolean {
  return task.isolatedUntilMs > 0 && isWanted(task);
}

/** It is wanted, and holds its seat. */
export function isActive(task: Pick<Task, 'state' | 'wanted' | 'isolatedUntilMs' | 'absence'>): boolean {
  return task.isolatedUntilMs === 0 && !isAbsent(task) && isWanted(task);
}

/** Its node prepares it while another task has its seat: it runs when that one has ended. */
export function waitsForSeat(task: Pick<Task, 'state' | 'wanted' | 'isolatedUntilMs' | 'absence'>): boolean {
  return task.wanted === 'ready' && isActive(task);
}

/** It may hold processes, an address and resources on its node. */
export function occupiesNode(task: Pick<Task, 'state' | 'nodeId'>): boolean {
  return task.nodeId !== '' && !isTerminal(task.state);
}

/** Traffic may be sent to it: running, wanted, in its seat, and healthy where health is checked. */
export function isServing(
  task: Pick<Task, 'state' | 'wanted' | 'health' | 'address' | 'isolatedUntilMs' | 'absence'>,
): boolean {
  return (
    task.isolatedUntilMs === 0 &&
    task.state === 'running' &&
    !isAbsent(task) &&
    task.wanted === 'running' &&
    task.address !== '' &&
    (task.health === '' || task.health === 'healthy')
  );
}

/** The signals that commonly end a process, by number. */
const endingSignals: Readonly<Record<number, string>> = {
  1: 'SIGHUP',
  2: 'SIGINT',
  3: 'SIGQUIT',
  4: 'SIGILL',
  6: 'SIGABRT',
  7: 'SIGBUS',
  8: 'SIGFPE',
  9: 'SIGKILL',
  11: 'SIGSEGV',
  13: 'SIGPIPE',
  14: 'SIGALRM',
  15: 'SIGTERM',
};

/** How a process ended, in words, by the conventions of shells. */
export function exitWords(code: number): string {
  if (code === 126) return 'exit code 126: its command cannot be executed';
  if (code === 127) return 'exit code 127: its command was not found';
  return code > 128
    ? `exit code ${code} (${endingSignals[code - 128] ?? `signal ${code - 128}`})`
    : `exit code ${code}`;
}

/** `a` orders before `b` in the life of a task: negative, zero or positive. */
export function compareStates(a: TaskState, b: TaskState): number {
  return rank.get(a)! - rank.get(b)!;
}

/**
 * The task with an agent's word about it taken in; the task itself where the word is old, repeated or against the law.
 * `heardAtMs`: by the clock of who takes it in, for what others are to wait for; started and finished are by the agent's.
 */
export function withStatus(task: Task, status: TaskStatus, heardAtMs: number): Task {
  if (isTerminal(task.state)) return task;
  if (status.state !== task.state && !mayAdvance(task.state, status.state)) return task;
  const next: Task = {
    ...task,
    state: status.state,
    message: status.message,
    error: status.error,
    stateAtMs: status.state === task.state ? task.stateAtMs : heardAtMs,
    startedAtMs: status.startedAtMs,
    finishedAtMs: status.finishedAtMs,
    exitCode: status.exitCode,
    oomKilled: status.oomKilled,
    health: status.health,
    pid: status.pid,
    imageDigest: status.imageDigest || task.imageDigest,
    absence: isTerminal(status.state) ? undefined : task.absence,
  };
  return sameFields(task, next) ? task : next;
}

function sameFields(a: Task, b: Task): boolean {
  for (const key of Object.keys(b) as (keyof Task)[]) if (a[key] !== b[key]) return false;
  return true;
}
