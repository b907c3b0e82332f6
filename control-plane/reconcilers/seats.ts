/** A service's tasks by the seat they fill: a slot of a replicated service, or a node of a global one. */
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import { isPerNode } from '#proto/model/job.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import {
  exitWords,
  isAbsent,
  isActive,
  isIsolated,
  isTerminal,
  isWanted,
  type Task,
  waitsForSeat,
} from '#proto/model/task.ts';

export interface Seat {
  /** From 1; 0 in global mode. */
  readonly slot: number;
  /** In global mode; empty otherwise. */
  readonly nodeId: NodeId | '';
  readonly nodeName: string;
  /** All of them, in the order in which they took the seat. */
  readonly tasks: readonly Task[];
  /** Of a job: the iteration that its tasks belong to. */
  readonly iteration?: number;
}

/** What a reconciler wants done, and why. Every `why` lands in `task.why`. */
export type Opinion =
  | {
      readonly kind: 'start';
      readonly seat: Seat;
      readonly revision: number;
      /** Wall clock, ms; 0: at once. */
      readonly startAfterMs: number;
      readonly why: string;
      /** It is prepared while this one runs, and runs when this one has ended. */
      readonly after?: Task | undefined;
    }
  /** It was prepared for its seat, which is free now. */
  | { readonly kind: 'run'; readonly task: Task; readonly why: string }
  /** `duplicate`: another one has its seat. */
  | { readonly kind: 'stop'; readonly task: Task; readonly why: string; readonly duplicate?: true }
  /** It is unhealthy, and runs on without its seat. */
  | { readonly kind: 'isolate'; readonly task: Task; readonly untilMs: number; readonly why: string }
  /** It is unhealthy, and not to be isolated: its agent is to end it. */
  | { readonly kind: 'end'; readonly task: Task; readonly why: string }
  /** Its node is down: others may have its seat until it comes back. */
  | { readonly kind: 'absent'; readonly task: Task; readonly bootId: string; readonly why: string }
  /** It has its seat again, from that instant on. */
  | { readonly kind: 'return'; readonly task: Task; readonly atMs: number; readonly why: string }
  /** Its node is gone: it counts as ended, whatever became of it. */
  | { readonly kind: 'orphan'; readonly task: Task; readonly why: string }
  /** Only a word about a task. */
  | { readonly kind: 'note'; readonly task: Task; readonly why: string }
  /** Its record may go. */
  | { readonly kind: 'forget'; readonly task: Task; readonly why: string };

/** Opinions, and when to look again although nothing has changed: wall clock ms, Infinity for never. */
export interface Advice {
  readonly opinions: readonly Opinion[];
  readonly wakeAtMs: number;
}

export const never = Number.POSITIVE_INFINITY;
export const noAdvice: Advice = { opinions: [], wakeAtMs: never };

/** By age; who was away and came back is as old as ever. */
export function oldestFirst(a: Task, b: Task): number {
  return a.createdAtMs - b.createdAtMs || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0);
}

/** In the order in which they took their seat: who came back took it again, from whoever had it meanwhile. */
export function inSeatOrder(a: Task, b: Task): number {
  return seatedAtMs(a) - seatedAtMs(b) || oldestFirst(a, b);
}

export function seatedAtMs({ createdAtMs, returnedAtMs }: Task): number {
  return Math.max(createdAtMs, returnedAtMs);
}

/** Seats that hold a task, or did; `tasks` in any order. `nodeIdOf` finds the node that a global task waits for. */
export function seatsOf(
  tasks: Iterable<Task>,
  mode: ServiceSpec['mode'],
  nodeIdOf: (nodeName: string) => NodeId | '',
): Map<string, Seat> {
  const perNode = isPerNode({ mode });
  const seats = new Map<string, Seat & { readonly tasks: Task[] }>();
  for (const task of tasks) {
    const nodeId = perNode ? task.nodeId || nodeIdOf(task.nodeName) : '';
    const key = perNode ? nodeId || task.nodeName : String(task.slot);
    const seat = seats.get(key);
    if (seat) seat.tasks.push(task);
    else {
      const nodeName = perNode ? task.nodeName : '';
      seats.set(key, { slot: perNode ? 0 : task.slot, nodeId, nodeName, tasks: [task] });
    }
  }
  for (const seat of seats.values()) seat.tasks.sort(inSeatOrder);
  return seats;
}

export function latestOf(seat: Seat): Task | undefined {
  return seat.tasks.at(-1);
}

/** The last one that held it, or was to: not who was only prepared for it. */
export function lastHolderOf(seat: Seat): Task | undefined {
  return seat.tasks.findLast(({ successorOf, startedAtMs }) => successorOf === '' || startedAtMs > 0);
}

/** The oldest first: of those that do the same it is the one to keep. */
export function activeOf(seat: Seat): Task[] {
  return seat.tasks.filter(isActive).sort(oldestFirst);
}

/** Those that would hold it if their nodes were heard. */
export function absentOf(seat: Seat): Task[] {
  return seat.tasks.filter(isAbsent);
}

/** It is taken, by tasks that no node has been given yet. */
export function wasNowhere(seat: Seat): boolean {
  const active = activeOf(seat);
  return active.length > 0 && active.every(({ nodeId }) => nodeId === '');
}

/** Revisions of which a task has been given to a node: nothing holds them back any more. */
export function begunRevisions(tasks: Iterable<Task>): ReadonlySet<number> {
  const begun = new Set<number>();
  for (const task of tasks) if (task.nodeId !== '') begun.add(task.revision);
  return begun;
}

/** Told to stop, and not there yet. */
export function isStopping(task: Task): boolean {
  return !isTerminal(task.state) && !isWanted(task);
}

/** It does what it is there for. */
export function isUp(task: Task): boolean {
  return task.state === 'running' && isActive(task) && (task.health === '' || task.health === 'healthy');
}

/**
 * It ended, as far as its seat is concerned, without being told to by us: the restart policy says what is next. What is unhealthy is
 * ended by its agent, or isolated.
 */
export function endedByItself(task: Task): boolean {
  if (isIsolated(task)) return true;
  return isTerminal(task.state) && task.state !== 'orphaned' && (task.wanted === 'running' || task.wanted === 'ready');
}

/** It ended by itself, and not well. */
export function hasFailed(task: Task): boolean {
  return endedByItself(task) && task.state !== 'complete';
}

/** The seat is taken: by a task that holds it, or by one that ended by itself and whose restart is the policy's affair. */
export function isSeated(seat: Seat): boolean {
  const latest = latestOf(seat);
  return latest !== undefined && (endedByItself(latest) || seat.tasks.some(isActive));
}

/** `web.3 (k3j2a)`: a task as whys call it. */
export function called(task: Task): string {
  return `${task.serviceName}.${task.slot > 0 ? task.slot : task.nodeName} (${task.id.slice(0, 5)})`;
}

/** How a task ended, in words. */
export function endOf(task: Task): string {
  if (task.error !== '') return task.error;
  if (task.oomKilled) return 'out of memory';
  if (task.state === 'complete') return 'completed';
  return task.state === 'failed' ? exitWords(task.exitCode) : task.message || task.state;
}

/** Active tasks of the revision by node; undefined where there are no others, that are to go in the end. */
export function stayingOf(tasks: Iterable<Task>, revision: number): ReadonlyMap<NodeId, number> | undefined {
  const staying = new Map<NodeId, number>();
  let others = false;
  for (const task of tasks) {
    if (task.nodeId === '' || !isActive(task)) continue;
    if (task.revision === revision) staying.set(task.nodeId, (staying.get(task.nodeId) ?? 0) + 1);
    else others = true;
  }
  return others ? staying : undefined;
}

/** Tasks that end before those that are prepared for their seats run, by node. */
export function leavingOf(tasks: ReadonlyMap<TaskId, Task>): ReadonlyMap<NodeId, number> {
  const leaving = new Map<NodeId, number>();
  for (const task of tasks.values()) {
    const before = waitsForSeat(task) ? tasks.get(task.successorOf as TaskId) : undefined;
    if (before && before.nodeId !== '' && isActive(before))
      leaving.set(before.nodeId, (leaving.get(before.nodeId) ?? 0) + 1);
  }
  return leaving;
}

/** How long it ran, by its node's clock alone; 0 where it never did. */
export function ranForMs(task: Task): number {
  return task.startedAtMs > 0 && task.finishedAtMs > 0 ? task.finishedAtMs - task.startedAtMs : 0;
}
