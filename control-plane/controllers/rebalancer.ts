/**
 * Evens out nodes after one has come, come back, or changed: a pass looks at each service, has its best move made, looks
 * again, and ends with a round that moves nothing.
 *
 *   a node is ready, active, labelled ──▶ waits until nodes are quiet ──▶ a round over all services ──(nothing moved)──▶ done
 *                                                                          ▲            │ moved
 *                                                                          └────────────┘
 *
 * No seat is moved again and again in a pass, so that services that follow each other around come to rest, too.
 */
import type { Books } from '#control-plane/reconcilers/books.ts';
import { adviseMove, type Move, quietFromMs } from '#control-plane/reconcilers/rebalance.ts';
import { same } from '#control-plane/reconcilers/same.ts';
import type { Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import { rebalanceDefaults } from '#proto/model/cluster.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import { isPassedOver, type Node } from '#proto/model/node.ts';
import { isActive, type Task } from '#proto/model/task.ts';
import { inOrder } from './plan-rebalance.ts';

export interface RebalancerParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly books: Books;
  /** Other services' tasks have the networks of its tasks. */
  readonly isShared: (name: string) => boolean;
  /** Has the service decided: `books.moves` holds what to move. */
  readonly decide: (service: ServiceId) => void;
}

/** The guard by which operators ask for a pass. */
export const rebalanceGuard = 'rebalance';

/** A new leader looks around first. */
const afterElectionMs = 10_000;
/** What has changed may go on changing. */
const afterChangeMs = 2_000;
/** A look lasts no longer at a time. */
const lookMs = 10;
/** What is not at rest is looked at again so often, and for so long. */
const againMs = 1_000;
const patienceMs = 120_000;
/** A move that has not begun by then was not made; one that is not over by then is waited for no longer. */
const beginMs = 5_000;
const arriveMs = 600_000;

interface Pass {
  readonly asked: boolean;
  /** Wall clock, ms. */
  readonly notBeforeMs: number;
  /** Undefined: all services. */
  readonly of: ServiceId | undefined;
  /** Still to be looked at in this round. */
  readonly queue: Set<ServiceId>;
  /** How often each seat has been moved, by SERVICE/SLOT. */
  readonly moved: Map<string, number>;
  /** Not at rest: since when, and when to look again, monotonic ms. */
  readonly busy: Map<ServiceId, { readonly sinceMs: number; readonly againMs: number }>;
  movedInRound: boolean;
}

interface Moving {
  readonly move: Move;
  readonly seat: string;
  begun: boolean;
  /** Monotonic, ms. */
  untilMs: number;
}

export class Rebalancer {
  readonly #parts: RebalancerParts;
  readonly #moving = new Map<ServiceId, Moving>();
  #pass: Pass | undefined;
  /** The budget allows no move before, monotonic ms. */
  #nextMoveMs = 0;
  #timer: Timer | undefined;
  #stopped = false;

  constructor(parts: RebalancerParts) {
    this.#parts = parts;
    this.#begin(afterElectionMs);
  }

  onDelta({ changes }: Delta): void {
    let over = false;
    for (const change of changes) {
      if (change.table === 'task') over = this.#onTask(change.before, change.after) || over;
      else if (change.table === 'node' && offersMore(change.before, change.after)) this.#begin(afterChangeMs);
      else if (change.table === 'guard' && change.key === rebalanceGuard && change.after) {
        this.#begin(0, { asked: true, of: change.after.of as ServiceId | undefined });
      }
    }
    if (over) this.#lookIn(0);
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #begin(waitMs: number, { asked = false, of }: Partial<Pick<Pass, 'asked' | 'of'>> = {}): void {
    const { store, clock } = this.#parts;
    const isOff = store.snapshot.cluster?.rebalancePerMinute === 0;
    if (isOff && !asked) return;
    this.#pass = {
      asked,
      of,
      notBeforeMs: clock.now() + waitMs,
      queue: new Set(),
      moved: new Map(),
      busy: new Map(),
      movedInRound: true,
    };
    this.#lookIn(waitMs);
  }

  /** True when a move is over, one way or the other. */
  #onTask(before: Task | undefined, after: Task | undefined): boolean {
    const task = (after ?? before)!;
    const moving = this.#moving.get(task.serviceId);
    if (!moving) return false;
    const { move } = moving;
    if (task.id === move.taskId) return !(after && isActive(after)) && this.#end(moving, true);
    if (task.successorOf !== move.taskId) return false;
    if (!after || !isActive(after)) return this.#end(moving, false);
    if (!moving.begun) {
      moving.begun = true;
      moving.untilMs = this.#parts.clock.monotonic() + arriveMs;
    }
    return false;
  }

  #end({ move, seat, begun }: Moving, arrived: boolean): true {
    const { log, books } = this.#parts;
    const { serviceId: service, taskId: task, toName: node, reason } = move;
    this.#moving.delete(service);
    books.moves.delete(service);
    const fault = begun ? 'its successor did not come up' : 'its place is gone';
    if (arrived && begun) log.info('task moved', { service, task, node, why: reason });
    else log.info('task not moved', { service, task, node, why: fault });
    const pass = this.#pass;
    if (pass?.moved.has(seat)) {
      if (arrived && begun) pass.movedInRound = true;
      // What does not come up there is not tried again in this pass.
      else pass.queue.delete(service);
    }
    return true;
  }

  #lookIn(ms: number): void {
    if (this.#stopped) return;
    this.#timer?.cancel();
    this.#timer = this.#parts.clock.after(Math.max(1, ms), () => this.#look());
  }

  #look(): void {
    const pass = this.#pass;
    if (!pass || this.#stopped) return;
    const { clock, store } = this.#parts;
    const now = clock.monotonic();
    for (const moving of [...this.#moving.values()]) if (moving.untilMs <= now) this.#end(moving, false);
    const quietMs = Math.max(pass.notBeforeMs, quietFromMs(store.snapshot.all('node'))) - clock.now();
    const isOver = quietMs <= 0 && pass.queue.size === 0 && this.#moving.size === 0 && !this.#nextRound(pass);
    if (!isOver) this.#lookIn(quietMs > 0 ? quietMs : this.#round(pass));
  }

  /** False: the last one moved nothing, and the pass is over. */
  #nextRound(pass: Pass): boolean {
    if (!pass.movedInRound) {
      this.#pass = undefined;
      return false;
    }
    pass.movedInRound = false;
    const { snapshot } = this.#parts.store;
    for (const { id } of inOrder(snapshot.all('service')))
      if (pass.of === undefined || pass.of === id) pass.queue.add(id);
    return true;
  }

  /** Looks at services until the budget is used or there is nothing left to see; in how many ms to go on. */
  #round(pass: Pass): number {
    const { clock, store } = this.#parts;
    const begin = clock.monotonic();
    const { rebalancePerMinute, rebalanceAtOnce } = store.snapshot.cluster ?? rebalanceDefaults;
    const paceMs = 60_000 / (rebalancePerMinute || rebalanceDefaults.rebalancePerMinute);
    for (const id of [...pass.queue]) {
      if (this.#moving.size >= rebalanceAtOnce) return againMs;
      const now = clock.monotonic();
      if (now < this.#nextMoveMs) return this.#nextMoveMs - now;
      if (now - begin > lookMs) return 1;
      if (this.#moving.has(id) || (pass.busy.get(id)?.againMs ?? 0) > now) continue;
      const move = this.#advise(pass, id);
      if (!move) continue;
      this.#nextMoveMs = now + paceMs;
      const seat = `${id}/${move.slot}`;
      pass.moved.set(seat, (pass.moved.get(seat) ?? 0) + 1);
      this.#moving.set(id, { move, seat, begun: false, untilMs: now + beginMs });
      this.#parts.books.moves.set(id, move);
      this.#parts.decide(id);
    }
    return pass.queue.size === 0 && this.#moving.size === 0 ? 1 : againMs;
  }

  #advise(pass: Pass, id: ServiceId): Move | undefined {
    const { store, clock, books, isShared } = this.#parts;
    const service = store.snapshot.service(id);
    const advice = service
      ? adviseMove(
          {
            snapshot: store.snapshot,
            scheduler: books.scheduler,
            now: clock.now(),
            tasksOf: (service) => store.snapshot.tasksOfService(service),
            isShared,
            movesOf: ({ slot }) => pass.moved.get(`${id}/${slot}`) ?? 0,
          },
          service,
        )
      : undefined;
    const now = clock.monotonic();
    const sinceMs = pass.busy.get(id)?.sinceMs ?? now;
    pass.busy.delete(id);
    if (advice?.kind === 'move') return advice.move;
    if (advice?.kind === 'busy' && now - sinceMs < patienceMs) pass.busy.set(id, { sinceMs, againMs: now + againMs });
    else pass.queue.delete(id);
    return undefined;
  }
}

/** A node has come, come back, or tells something else of itself: what is elsewhere may be better off there. */
function offersMore(before: Node | undefined, after: Node | undefined): boolean {
  if (after?.state !== 'ready' || after.availability !== 'active') return false;
  return (
    before?.state !== 'ready' ||
    before.availability !== 'active' ||
    (isPassedOver(before) && !isPassedOver(after)) ||
    !same(before.labels, after.labels) ||
    !same(before.capacity, after.capacity)
  );
}
