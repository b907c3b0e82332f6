/** Everything about one service, decided in one look and committed in one transaction: seats, rollout, restarts, places, addresses, history. */

import { type Request, requestOf, suits } from '#control-plane/scheduler/filters.ts';
import type { Change } from '#control-plane/store/records.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';
import { isJob, isPerNode } from '#proto/model/job.ts';
import { isPassedOver } from '#proto/model/node.ts';
import type { Rollout, Service } from '#proto/model/service.ts';
import { isAbsent, isActive, isWanted, occupiesNode, type Task } from '#proto/model/task.ts';
import { absences, mayReplace, orphaned } from './absence.ts';
import { mustLeave } from './drain.ts';
import { seatOrders } from './host-ports.ts';
import { adoptions } from './in-place.ts';
import { isolation } from './isolation.ts';
import { decideJob } from './job.ts';
import { newTask } from './new-task.ts';
import { perNode } from './per-node.ts';
import { TaskPlaces } from './place-tasks.ts';
import { forgetHistory, reapHistory, reapTasks, seatKey } from './reap.ts';
import { replicated, type Seating } from './replicated.ts';
import { isRolling, rollout } from './rollout.ts';
import { same } from './same.ts';
import { decideSeat } from './seat.ts';
import { begunRevisions, isUp, never, type Opinion, type Seat, seatsOf, wasNowhere } from './seats.ts';
import { rollbackOrPause } from './service-changes.ts';
import { type DecisionContext, ServiceDraft } from './service-draft.ts';
import { awaitsOwner, lostNetwork } from './shared-network.ts';
import { singletonsOf } from './singleton-gate.ts';
import { mayStart, type Standing, stopsAfter } from './start-order.ts';
import { withOutcomeOf } from './versions.ts';

export interface Decision {
  readonly changes: readonly Change[];
  /** Opinions behind them, for those who want to know why. */
  readonly opinions: readonly Opinion[];
  /** Look again at this instant although nothing has changed; Infinity: never. */
  readonly wakeAtMs: number;
  /** Tasks that no node takes now: look again when a node or a resource becomes free. */
  readonly unplaced: number;
  /** It waits for services that it depends on: look again when one of them changes. */
  readonly waits: boolean;
  /** Of these, tasks must leave for tasks of this one: they are to be looked at, too. */
  readonly evicts: readonly ServiceId[];
  /** There is more to do than one transaction should hold: look again at once. */
  readonly more: boolean;
}

/** New tasks of one decision; the rest follows in the next. */
export const mostStarts = 1_500;

export function decideService(context: DecisionContext, id: ServiceId): Decision {
  const service = context.snapshot.service(id);
  if (!service)
    return { changes: [], opinions: [], wakeAtMs: never, unplaced: 0, waits: false, evicts: [], more: false };
  const decision = new ServiceDecision(context, service);
  try {
    return decision.decide();
  } catch (error) {
    decision.revert();
    throw error;
  }
}

class ServiceDecision {
  readonly #context: DecisionContext;
  readonly #draft: ServiceDraft;
  readonly #places: TaskPlaces;
  /** Whether the current revision may begin. */
  readonly #standing: Standing;
  readonly #opinions: Opinion[] = [];
  /** Why tasks cannot go on under the service's revision. */
  readonly #unadopted = new Map<TaskId, string>();
  #starts = 0;

  constructor(context: DecisionContext, service: Service) {
    this.#context = context;
    this.#draft = new ServiceDraft(context, service);
    this.#places = new TaskPlaces(this.#draft);
    this.#standing = mayStart(context.snapshot, service, this.#tasks, context.now);
  }

  decide(): Decision {
    this.#absences();
    this.#carryOut(this.#context.books.claims.evictions(this.#tasks));
    if (this.#service.removing) this.#remove();
    else if (isJob(this.#service.spec)) this.#job();
    else {
      this.#giveVip();
      this.#autoscale();
      this.#adopt();
      this.#isolate();
      const request = this.#request();
      const seats = this.#seats();
      const seating = this.#seating(request, seats);
      this.#carryOut(seating.opinions);
      this.#fill(request, seating);
      this.#move(seats);
      this.#places.give(this.#standing);
      this.#reap(seats, seating.wanted);
    }
    return {
      changes: this.#draft.changes(),
      opinions: this.#opinions,
      wakeAtMs: this.#draft.wakeAtMs,
      unplaced: this.#places.unplaced,
      waits: this.#standing.at !== 'holds',
      evicts: this.#places.evicts,
      more: this.#starts > mostStarts,
    };
  }

  /** Tasks of nodes that went down, came back or are gone. */
  #absences(): void {
    const { snapshot, now } = this.#context;
    const facts = {
      service: this.#service,
      now,
      orphanAfterMs: snapshot.cluster?.orphanAfterMs,
      nodeOf: (task: Task) => snapshot.node(task.nodeId as NodeId),
      templateOf: (task: Task) => this.#draft.templateOf(task),
      waits: (task: Task) => awaitsOwner(snapshot, this.#draft.templateOf(task)?.networkMode ?? '', task),
    };
    const { opinions, wakeAtMs } = absences(facts, [...this.#tasks]);
    this.#draft.wake(wakeAtMs);
    this.#carryOut(opinions);
  }

  /** Takes what it planned out of the books again. */
  revert(): void {
    this.#draft.revert();
  }

  get #service(): Service {
    return this.#draft.service;
  }

  get #tasks(): Iterable<Task> {
    return this.#draft.tasks.values();
  }

  #seats(tasks: Iterable<Task> = this.#tasks): Map<string, Seat> {
    return seatsOf(tasks, this.#service.spec.mode, (name) => this.#draft.nodeIdOf(name) ?? '');
  }

  /** What its tasks ask of nodes by the current spec; undefined where the spec says nothing that can be met. */
  #request(): Request | undefined {
    try {
      return requestOf(this.#service.id, this.#service.spec, this.#service.spec.template);
    } catch (error) {
      if (isFault(error)) return undefined;
      throw error;
    }
  }

  #seating(request: Request | undefined, seats: ReadonlyMap<string, Seat>): Seating {
    const { books } = this.#context;
    if (this.#service.spec.mode === 'replicated') {
      return replicated(this.#service, seats, (id) => books.ledger.usageOf(id as NodeId)?.tasks ?? 0);
    }
    return this.#perNode(request, seats);
  }

  #perNode(request: Request | undefined, seats: ReadonlyMap<string, Seat>): Seating {
    const { books, snapshot } = this.#context;
    return perNode(snapshot.all('node'), seats, (node) => {
      const usage = books.ledger.usageOf(node.id);
      if (!request || !usage) return 'its constraints cannot be met';
      if (node.availability === 'drain') return `node ${node.name} is drained`;
      return suits(request, usage, books.ledger) ? '' : `node ${node.name} no longer suits it`;
    });
  }

  /** Its iterations, and the tasks of those under way. */
  #job(): void {
    const { snapshot, books, now } = this.#context;
    const { spec } = this.#service;
    const request = this.#request();
    this.#giveVip();
    const advice = decideJob({
      service: this.#service,
      tasks: [...this.#tasks],
      now,
      calendar: spec.schedule && books.zones.calendar(spec.schedule.cron, spec.schedule.timezone),
      seatsOf: (tasks) => this.#seats(tasks),
      perNode: (seats) => this.#perNode(request, seats),
      leave: (task) =>
        request && !isPerNode(spec) ? mustLeave(request, task, snapshot.node(task.nodeId as NodeId)) : '',
      mayReplace: (task) => mayReplace(snapshot.node(task.nodeId as NodeId)),
    });
    if (!same(advice.job, this.#service.job)) this.#draft.service = { ...this.#service, job: advice.job };
    this.#draft.wake(advice.wakeAtMs);
    this.#carryOut(advice.opinions);
    this.#places.give(this.#standing);
    this.#reapHistory();
  }

  /** Rollout first: whether it goes on, and which seats may move; then each seat by itself. */
  #fill(request: Request | undefined, { wanted, away }: Seating): void {
    const { snapshot, now } = this.#context;
    const rolling = rollout(this.#service, wanted, away, now);
    // Once a rollout has ended, whoever it did not meet goes over when it is met; a task that was never anywhere has not begun its revision.
    const rolls = isRolling(this.#service);
    const mayMove = (seat: Seat) =>
      (!rolls || rolling.move.has(seat)) && (this.#standing.at === 'holds' || wasNowhere(seat));
    this.#draft.wake(rolling.wakeAtMs);
    if (rolling.rollout) this.#setRollout(rolling.rollout);
    if (rolling.rollBack !== undefined) {
      this.#rollBack(rolling.rollBack);
      return;
    }
    const begun = begunRevisions(this.#tasks);
    const singletons = singletonsOf(this.#service, this.#tasks);
    const facts = {
      service: this.#service,
      now,
      rolling: this.#service.rollout.state !== 'paused',
      leave: (task: Task) =>
        lostNetwork(snapshot, this.#draft.templateOf(task)?.networkMode ?? '', task) ||
        (request && this.#service.spec.mode === 'replicated'
          ? mustLeave(request, task, snapshot.node(task.nodeId as NodeId))
          : ''),
      mayReplace: (task: Task) => mayReplace(snapshot.node(task.nodeId as NodeId)),
      isPassedOver: (task: Task) => isPassedOver(snapshot.node(task.nodeId as NodeId)),
      mayRun: (task: Task) => singletons.every(({ id }) => id === task.id),
      unadopted: (task: Task) => this.#unadopted.get(task.id) ?? '',
      mayKeep: (number: number) => begun.has(number) && snapshot.revisionOf(this.#service.id, number) !== undefined,
    };
    const orders = seatOrders(this.#service, request, this.#context.books.scheduler);
    this.#carryOut(
      wanted.flatMap((seat) => decideSeat({ ...facts, ...orders(seat, mayMove(seat)) }, seat, mayMove(seat))),
    );
  }

  /** Begins the move that is wanted, where it still makes sense: its successor must have its place now. */
  #move(seats: ReadonlyMap<string, Seat>): void {
    const { books } = this.#context;
    const move = books.moves.get(this.#service.id);
    if (!move) return;
    books.moves.delete(this.#service.id);
    const task = this.#draft.tasks.get(move.taskId);
    const seat = task && seats.get(String(task.slot));
    if (!task || !seat || !isUp(task) || task.nodeId !== move.from || this.#starts > 0) return;
    if ([...this.#tasks].some((other) => other.successorOf === task.id && isActive(other))) return;
    const why = `moved from ${move.fromName}: ${move.reason}`;
    const next = this.#newTask({ kind: 'start', seat, revision: task.revision, startAfterMs: 0, why });
    if (!this.#places.aim(next, move.to)) return;
    this.#starts++;
    this.#draft.put({ ...next, successorOf: task.id });
  }

  #setRollout(rollout: Rollout): void {
    this.#draft.service = { ...this.#service, rollout };
    this.#draft.write(...withOutcomeOf(this.#context.snapshot, this.#service));
  }

  /** The look that follows this commit begins the way back, where there is one. */
  #rollBack(why: string): void {
    for (const change of rollbackOrPause(this.#context, this.#service, why)) {
      if (change.table === 'service') this.#draft.service = change.value!;
      else this.#draft.write(change);
    }
    this.#draft.wake(this.#context.now);
  }

  #carryOut(opinions: readonly Opinion[]): void {
    const { now } = this.#context;
    for (const opinion of opinions) {
      if (opinion.kind === 'start') {
        if (this.#starts++ >= mostStarts) continue;
        this.#draft.put(this.#newTask(opinion));
      } else {
        const { task, why } = opinion;
        if (opinion.kind === 'forget') this.#draft.forget(task);
        else if (opinion.kind === 'note') {
          if (task.why === why) continue;
          this.#draft.put({ ...task, why });
        } else if (opinion.kind === 'run') {
          const next = this.#places.addressed(task);
          if (typeof next === 'string') {
            if (task.message !== next) this.#draft.put({ ...task, message: next });
            continue;
          }
          const runs: Task = { ...next, wanted: 'running', why, successorOf: '' };
          this.#draft.put(runs);
          this.#context.books.plan(runs, now);
          if (task.singleton) this.#draft.guard(task.nodeId as NodeId);
        } else if (opinion.kind === 'isolate') this.#draft.put({ ...task, why, isolatedUntilMs: opinion.untilMs });
        else if (opinion.kind === 'end') this.#draft.put({ ...task, why, isolationRefused: true });
        else if (opinion.kind === 'absent')
          this.#draft.put({ ...task, absence: { sinceMs: now, bootId: opinion.bootId }, why });
        else if (opinion.kind === 'return')
          this.#draft.put({ ...task, absence: undefined, returnedAtMs: opinion.atMs, why });
        else if (opinion.kind === 'orphan' || isAbsent(task)) {
          this.#draft.put(orphaned(task, why, now));
          if (task.singleton) this.#draft.guard(task.nodeId as NodeId);
        } else if (task.nodeId === '') this.#draft.forget(task);
        else {
          const duplicate = opinion.kind === 'stop' && (opinion.duplicate ?? false);
          this.#draft.put({ ...task, wanted: 'shutdown', why, duplicate });
        }
      }
      this.#opinions.push(opinion);
    }
  }

  #newTask(opinion: Extract<Opinion, { kind: 'start' }>): Task {
    const { snapshot, now, newId } = this.#context;
    const record = snapshot.revisionOf(this.#service.id, opinion.revision);
    return newTask(this.#service, record, opinion, newId(), now);
  }

  /** With dnsrr too, where it stands for the service among those that may be called. */
  #giveVip(): void {
    const { snapshot, books, now } = this.#context;
    const { vip, id } = this.#service;
    if (vip !== '') return;
    const next = books.addresses.takeVip(snapshot.cluster?.vipNetwork ?? '', now) ?? '';
    if (next === '') return;
    this.#draft.service = { ...this.#service, vip: next };
    books.addresses.setService(id, this.#service, now);
  }

  #autoscale(): void {
    const autoscaled = this.#context.autoscaled?.(this.#service);
    if (autoscaled) this.#draft.service = { ...this.#service, autoscaled };
  }

  /** Tasks whose processes go on under the service's revision are tasks of it from here on, all at once: none of them stops. */
  #adopt(): void {
    const { snapshot, books, now } = this.#context;
    for (const [id, adopted] of adoptions(this.#service, this.#tasks, snapshot, books.ledger, now))
      if (typeof adopted === 'string') this.#unadopted.set(id, adopted);
      else this.#draft.put(adopted);
  }

  /** Unhealthy tasks that are kept for inspection hold no seats from here on. */
  #isolate(): void {
    const { snapshot, now } = this.#context;
    let seats: ReadonlyMap<string, Seat> | undefined;
    let request: Request | undefined;
    const advice = isolation(
      {
        service: this.#service,
        now,
        isolates: (task) => this.#draft.templateOf(task)?.container.healthCheck?.onUnhealthy === 'isolate',
        seatOf: (task) => {
          seats ??= this.#seats();
          return seats.get(isPerNode(this.#service.spec) ? task.nodeId : String(task.slot))!;
        },
        leave: (task) => {
          request ??= this.#request();
          return request ? mustLeave(request, task, snapshot.node(task.nodeId as NodeId)) : '';
        },
      },
      this.#tasks,
    );
    this.#draft.wake(advice.wakeAtMs);
    this.#carryOut(advice.opinions);
  }

  /** Tells every task to stop; takes all records away once none of them occupies a node. */
  #remove(): void {
    const { snapshot } = this.#context;
    const tasks = [...this.#tasks];
    const why = 'the service was removed';
    if (stopsAfter(snapshot, this.#service)) return;
    this.#carryOut(tasks.filter(isWanted).map((task) => ({ kind: 'stop', task, why })));
    if ([...this.#tasks].some(occupiesNode)) return;
    for (const task of tasks) this.#draft.forget(task);
    if (!snapshot.trashedService(this.#service.id)) this.#draft.write(...forgetHistory(snapshot, this.#service.id));
    this.#draft.remove();
  }

  #reap(seats: ReadonlyMap<string, Seat>, wanted: readonly Seat[]): void {
    const { now } = this.#context;
    const advice = reapTasks(this.#service, seats.values(), new Set(wanted.map(seatKey)), now);
    this.#draft.wake(advice.wakeAtMs);
    this.#carryOut(advice.opinions.filter((opinion) => opinion.kind === 'forget'));
    this.#reapHistory();
  }

  #reapHistory(): void {
    this.#draft.write(...reapHistory(this.#context.snapshot, this.#service, this.#tasks));
  }
}
