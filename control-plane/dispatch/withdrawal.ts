/** Which stops are kept from their nodes until nobody sends to the tasks any more. Pure: time, and what nodes say, are arguments.
 *
 *   told to stop (revision R) ─▶ every node is told of the endpoint ─▶ all that count hold R ─▶ the task's node is told
 */
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import { isServing, occupiesNode, type Task } from '#proto/model/task.ts';

/**
 * Longest wait for nodes that have a session, from its hello on: one that is well answers within milliseconds, one whose
 * machine is starved within seconds, and as long as it has not answered it sends. One that is back begins by saying what it
 * held before. Only the first stop pays for one that is broken.
 */
export const withdrawalLimitMs = 5_000;
/**
 * Longest wait in all, for nodes that have no session, or have it again. An agent that is restarted comes back, while its kernel goes on with the old
 * table; one that has died is judged down (reconcilers/node-health), and not waited for any more, long before this.
 */
export const awayLimitMs = 10_000;

/** A session in which the node has said hello. */
export interface Greeted {
  readonly greetedAtMs: number;
  /** The newest revision that its kernel and name server are known to hold; 0: it has not said. */
  readonly appliedRevision: number;
}

/** A node that may send to tasks. */
export interface Sender {
  readonly id: NodeId;
  /** undefined: its agent is away. */
  readonly session: Greeted | undefined;
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
  /** When the last of those that were behind at the last look said hello; infinite: one of them is away. */
  #backAtMs = Number.NEGATIVE_INFINITY;
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
    const newest = this.#departures.at(-1)!.revision;
    const behind: Sender[] = [];
    let everywhere = Number.POSITIVE_INFINITY;
    this.#backAtMs = Number.NEGATIVE_INFINITY;
    for (const sender of senders) {
      const held = sender.session?.appliedRevision ?? 0;
      if (held >= newest || this.#overdue.has(sender.id)) continue;
      behind.push(sender);
      everywhere = Math.min(everywhere, held);
      this.#backAtMs = Math.max(this.#backAtMs, sender.session?.greetedAtMs ?? Number.POSITIVE_INFINITY);
    }
    const due = (departure: Departure) => departure.revision <= everywhere || nowMs >= this.#limitMs(departure);
    const told = this.#departures.findLast(due)?.revision ?? 0;
    for (const sender of behind) {
      const { id, session } = sender;
      if ((session?.appliedRevision ?? 0) >= told) continue;
      this.#givenUp.push(sender);
      // One that is away, or has just come back, has not had its time.
      if (session && nowMs >= session.greetedAtMs + withdrawalLimitMs) this.#overdue.add(id);
    }
    // One that is newer and due makes no older one wait: whoever is behind is waited for no longer.
    while (this.#departures[0] && this.#departures[0].revision <= told) {
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

  /** When `release` is to be asked again even if nothing is heard of any node (monotonic ms), as of the last time. */
  deadlineMs(nowMs: number): number | undefined {
    const oldest = this.#departures[0];
    if (!oldest) return undefined;
    const limitMs = oldest.sinceMs + withdrawalLimitMs;
    return nowMs < limitMs ? limitMs : this.#limitMs(oldest);
  }

  /** Whoever is behind by then is waited for no longer. */
  #limitMs({ sinceMs }: Departure): number {
    return Math.min(Math.max(sinceMs, this.#backAtMs) + withdrawalLimitMs, sinceMs + awayLimitMs);
  }

  /** Another leadership begins. */
  clear(): void {
    this.#departures = [];
    this.#held.clear();
    this.#overdue.clear();
    this.#givenUp = [];
  }
}
