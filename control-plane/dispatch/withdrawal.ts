/** Which stops are kept from their nodes until nobody sends to the tasks any more. Pure: time, and what nodes say, are arguments.
 *
 *   told to stop (revision R) ─▶ every node is told of the endpoint ─▶ all that count hold R ─▶ the task's node is told
 */
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import { isServing, occupiesNode, type Task } from '#proto/model/task.ts';

/**
 * Longest wait for nodes that have a session: one that is well answers within milliseconds, one whose machine is starved
 * within seconds, and as long as it has not answered it sends. Only the first stop pays for one that is broken.
 */
export const withdrawalLimitMs = 5_000;
/**
 * Longest wait for nodes without a session, or with one that has not said yet what it holds. An agent that is restarted comes back, while its kernel goes on with the old
 * table; one that has died is judged down (reconcilers/node-health), and not waited for any more, long before this.
 */
export const awayLimitMs = 10_000;

/** A node that may send to tasks. */
export interface Sender {
  readonly id: NodeId;
  /** The newest revision that its kernel and name server are known to hold; 0: it has not said, in a new session; undefined: it has none. */
  readonly appliedRevision: number | undefined;
}

/** What left service in one step of the store. */
interface Departure {
  readonly revision: number;
  readonly sinceMs: number;
  readonly tasks: Map<TaskId, NodeId>;
}

/** This change tells a task to stop that traffic is sent to. What is not up, or not well, nobody has to stop sending to. */
export function leavesService(before: Task | undefined, after: Task | undefined): after is Task {
  return before !== undefined && after !== undefined && isServing(before) && isLeaving(after);
}

/** It was told to stop, and but for that traffic would be sent to it. */
export function isLeaving(task: Task): boolean {
  return occupiesNode(task) && !isServing(task) && isServing(asUntold(task));
}

/** The task as its node knows it while its stop is withheld. */
export function asUntold(task: Task): Task {
  return task.wanted === 'running' || task.wanted === 'ready' ? task : { ...task, wanted: 'running' };
}

export class Withdrawals {
  /** By revision, the oldest first. */
  #departures: Departure[] = [];
  readonly #held = new Map<TaskId, Departure>();
  /** Nodes with a session that were waited for in vain: nobody waits for them again before they have caught up. */
  readonly #overdue = new Set<NodeId>();
  #givenUp: Sender[] = [];

  get waiting(): boolean {
    return this.#departures.length > 0;
  }

  /** The task's node is not to hear of its stop yet. */
  holds(task: TaskId): boolean {
    return this.#held.has(task);
  }

  /** These tasks left service at `revision`, no older than those before. */
  withhold(revision: number, tasks: readonly Task[], nowMs: number): void {
    if (tasks.length === 0) return;
    const departure: Departure = { revision, sinceMs: nowMs, tasks: new Map() };
    for (const task of tasks) {
      if (task.nodeId === '' || this.#held.has(task.id)) continue;
      departure.tasks.set(task.id, task.nodeId);
      this.#held.set(task.id, departure);
    }
    if (departure.tasks.size > 0) this.#departures.push(departure);
  }

  /** It has ended, or its record is gone: there is nothing left to withhold. */
  drop(task: TaskId): void {
    const departure = this.#held.get(task);
    if (!departure) return;
    this.#held.delete(task);
    departure.tasks.delete(task);
    if (departure.tasks.size === 0) this.#departures = this.#departures.filter((other) => other !== departure);
  }

  /** The node holds a newer revision than before, or has a new session. */
  caughtUp(node: NodeId): void {
    this.#overdue.delete(node);
  }

  /** Stops that may be told now, by node, given all nodes that may send; they are withheld no longer. */
  release(senders: Iterable<Sender>, nowMs: number): Map<NodeId, Set<TaskId>> {
    const released = new Map<NodeId, Set<TaskId>>();
    if (!this.waiting) return released;
    let everywhere = Number.POSITIVE_INFINITY;
    let isAnyAway = false;
    const known: Sender[] = [];
    for (const sender of senders) {
      if (this.#overdue.has(sender.id)) continue;
      known.push(sender);
      // One that has a session again, and has said nothing in it yet, is on its way back.
      isAnyAway ||= !sender.appliedRevision;
      everywhere = Math.min(everywhere, sender.appliedRevision ?? 0);
    }
    const limitMs = isAnyAway ? awayLimitMs : withdrawalLimitMs;
    const due = ({ revision, sinceMs }: Departure) => revision <= everywhere || nowMs >= sinceMs + limitMs;
    const newest = this.#departures.findLast(due)?.revision ?? 0;
    for (const sender of known) if ((sender.appliedRevision ?? 0) < newest) this.#givenUp.push(sender);
    // One without a session comes back, or is soon down.
    for (const { id, appliedRevision: held } of known) if (held !== undefined && held < newest) this.#overdue.add(id);
    // One that is newer and due makes no older one wait: whoever is behind is waited for no longer.
    while (this.#departures[0] && this.#departures[0].revision <= newest) {
      for (const [task, node] of this.#departures.shift()!.tasks) {
        this.#held.delete(task);
        const tasks = released.get(node);
        if (tasks) tasks.add(task);
        else released.set(node, new Set([task]));
      }
    }
    return released;
  }

  /** Nodes that stops were released without, since this was last asked: they may still send to tasks that end. */
  takeGivenUp(): readonly Sender[] {
    return this.#givenUp.splice(0);
  }

  /** When `release` is to be asked again even if nothing is heard of any node (monotonic ms, after `nowMs`). */
  deadlineMs(nowMs: number): number | undefined {
    const oldest = this.#departures[0];
    if (!oldest) return undefined;
    const limitMs = oldest.sinceMs + withdrawalLimitMs;
    return nowMs < limitMs ? limitMs : oldest.sinceMs + awayLimitMs;
  }

  /** Another leadership begins. */
  clear(): void {
    this.#departures = [];
    this.#held.clear();
    this.#overdue.clear();
    this.#givenUp = [];
  }
}
