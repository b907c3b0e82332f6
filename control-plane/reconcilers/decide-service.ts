/** Everything about one service, decided in one look and committed in one transaction: seats, rollout, restarts, places, addresses, history. */

import { type Request, requestOf, suits } from '#control-plane/scheduler/filters.ts';
import { given } from '#control-plane/scheduler/generic.ts';
import { whyNowhere } from '#control-plane/scheduler/place.ts';
import type { Change, Table, Tables } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import type { Autoscaled } from '#proto/model/autoscale.ts';
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';
import { isJob, isPerNode } from '#proto/model/job.ts';
import { sharedNetworkOf } from '#proto/model/network.ts';
import type { Node } from '#proto/model/node.ts';
import type { Rollout, Service, TaskTemplate } from '#proto/model/service.ts';
import { isActive, occupiesNode, type Task } from '#proto/model/task.ts';
import type { Books } from './books.ts';
import { mustLeave } from './drain.ts';
import { seatOrders } from './host-ports.ts';
import { adoptions } from './in-place.ts';
import { decideJob } from './job.ts';
import { MakeRoom } from './make-room.ts';
import { newTask } from './new-task.ts';
import { orphaned, orphans } from './orphan.ts';
import { perNode } from './per-node.ts';
import { forgetHistory, reapHistory, reapTasks, seatKey } from './reap.ts';
import { replicated, type Seating } from './replicated.ts';
import { isRolling, rollout } from './rollout.ts';
import { same } from './same.ts';
import { decideSeat } from './seat.ts';
import { begunRevisions, isUp, never, type Opinion, type Seat, seatsOf, stayingOf, wasNowhere } from './seats.ts';
import { rollbackOrPause } from './service-changes.ts';
import { lostNetwork, networkOwner } from './shared-network.ts';
import { shunnedNodes } from './shunned.ts';
import { mayStart, type Standing, stopsAfter } from './start-order.ts';
import { takeAddresses } from './take-addresses.ts';
import { withOutcomeOf } from './versions.ts';
import { giveHomes } from './volume-homes.ts';

export interface DecisionContext {
  readonly snapshot: Snapshot;
  /** Told of every placement at once; the caller reverts them when the changes are not committed. */
  readonly books: Books;
  /** Wall clock, ms. */
  readonly now: number;
  readonly newId: () => string;
  /** What the autoscaler wants to be written down of the service; undefined: nothing new. */
  readonly autoscaled?: (service: Service) => Autoscaled | undefined;
}

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
  readonly #tasks = new Map<TaskId, Task>();
  readonly #touched = new Set<TaskId>();
  readonly #volumes: Change[] = [];
  readonly #others: Change[] = [];
  readonly #opinions: Opinion[] = [];
  /** Why tasks cannot go on under the service's revision. */
  readonly #unadopted = new Map<TaskId, string>();
  readonly #before: Service;
  /** Whether the current revision may begin. */
  readonly #standing: Standing;
  #service: Service;
  /** Where tasks must go that were begun for it. */
  readonly #targets = new Map<TaskId, NodeId>();
  #wakeAtMs = never;
  readonly #room: MakeRoom;
  #unplaced = 0;
  #starts = 0;

  constructor(context: DecisionContext, service: Service) {
    this.#context = context;
    this.#before = service;
    this.#service = service;
    this.#room = new MakeRoom(context, service.spec);
    for (const task of context.snapshot.tasksOfService(service.id)) this.#tasks.set(task.id, task);
    this.#standing = mayStart(context.snapshot, service, this.#tasks.values(), context.now);
  }

  decide(): Decision {
    const { snapshot } = this.#context;
    this.#carryOut(orphans(this.#tasks.values(), (task) => snapshot.node(task.nodeId as NodeId)));
    this.#carryOut(this.#context.books.claims.evictions(this.#tasks.values()));
    if (this.#service.removing) this.#remove();
    else if (isJob(this.#service.spec)) this.#job();
    else {
      this.#giveVip();
      this.#autoscale();
      this.#adopt();
      const request = this.#request();
      const seats = this.#seats();
      const seating = this.#seating(request, seats);
      this.#carryOut(seating.opinions);
      this.#fill(request, seating);
      this.#move(seats);
      this.#place();
      this.#reap(seats, seating.wanted);
    }
    return this.#result();
  }

  /** Takes what it planned out of the books again. */
  revert(): void {
    const { books, snapshot, now } = this.#context;
    books.revert(snapshot, this.#result().changes, now, false);
  }

  #seats(tasks: Iterable<Task> = this.#tasks.values()): Map<string, Seat> {
    const ids = new Map<string, NodeId>();
    if (isPerNode(this.#service.spec)) {
      for (const node of this.#context.snapshot.all('node')) ids.set(node.name, node.id);
    }
    return seatsOf(tasks, this.#service.spec.mode, (name) => ids.get(name) ?? '');
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
      tasks: [...this.#tasks.values()],
      now,
      calendar: spec.schedule && books.zones.calendar(spec.schedule.cron, spec.schedule.timezone),
      seatsOf: (tasks) => this.#seats(tasks),
      perNode: (seats) => this.#perNode(request, seats),
      leave: (task) =>
        request && !isPerNode(spec) ? mustLeave(request, task, snapshot.node(task.nodeId as NodeId)) : '',
    });
    if (!same(advice.job, this.#service.job)) this.#service = { ...this.#service, job: advice.job };
    this.#wake(advice.wakeAtMs);
    this.#carryOut(advice.opinions);
    this.#place();
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
    this.#wake(rolling.wakeAtMs);
    if (rolling.rollout) this.#setRollout(rolling.rollout);
    if (rolling.rollBack !== undefined) {
      this.#rollBack(rolling.rollBack);
      return;
    }
    const begun = begunRevisions(this.#tasks.values());
    const facts = {
      service: this.#service,
      now,
      rolling: this.#service.rollout.state !== 'paused',
      leave: (task: Task) =>
        lostNetwork(snapshot, this.#templateOf(task)?.networkMode ?? '', task) ||
        (request && this.#service.spec.mode === 'replicated'
          ? mustLeave(request, task, snapshot.node(task.nodeId as NodeId))
          : ''),
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
    const task = this.#tasks.get(move.taskId);
    const seat = task && seats.get(String(task.slot));
    if (!task || !seat || !isUp(task) || task.nodeId !== move.from || this.#starts > 0) return;
    if ([...this.#tasks.values()].some((other) => other.successorOf === task.id && isActive(other))) return;
    const why = `moved from ${move.fromName}: ${move.reason}`;
    const next = this.#newTask({ kind: 'start', seat, revision: task.revision, startAfterMs: 0, why });
    const request = this.#groupRequest(next, move.to);
    if (typeof request === 'string' || !books.scheduler.open(request).pick()) return;
    this.#starts++;
    this.#targets.set(next.id, move.to);
    this.#put({ ...next, successorOf: task.id });
  }

  #setRollout(rollout: Rollout): void {
    this.#service = { ...this.#service, rollout };
    this.#others.push(...withOutcomeOf(this.#context.snapshot, this.#service));
  }

  /** The look that follows this commit begins the way back, where there is one. */
  #rollBack(why: string): void {
    for (const change of rollbackOrPause(this.#context, this.#service, why)) {
      if (change.table === 'service') this.#service = change.value!;
      else this.#others.push(change);
    }
    this.#wake(this.#context.now);
  }

  #carryOut(opinions: readonly Opinion[]): void {
    const { now } = this.#context;
    for (const opinion of opinions) {
      if (opinion.kind === 'start') {
        if (this.#starts++ >= mostStarts) continue;
        this.#put(this.#newTask(opinion));
      } else {
        const { task, why } = opinion;
        if (opinion.kind === 'forget') this.#forget(task);
        else if (opinion.kind === 'note') {
          if (task.why === why) continue;
          this.#put({ ...task, why });
        } else if (opinion.kind === 'orphan') this.#put(orphaned(task, why, now));
        else if (task.nodeId === '') this.#forget(task);
        else this.#put({ ...task, wanted: 'shutdown', why });
      }
      this.#opinions.push(opinion);
    }
  }

  #newTask(opinion: Extract<Opinion, { kind: 'start' }>): Task {
    const { snapshot, now, newId } = this.#context;
    const record = snapshot.revisionOf(this.#service.id, opinion.revision);
    return newTask(this.#service, record, opinion, newId(), now);
  }

  /** Nodes and addresses for all tasks that have none: one filtering for all tasks that ask the same. */
  #place(): void {
    const groups = new Map<string, Task[]>();
    for (const task of this.#tasks.values()) {
      if (task.nodeId !== '' || !isActive(task)) continue;
      const key = `${task.revision}/${this.#seatKeyOf(task)}`;
      const group = groups.get(key);
      if (group) group.push(task);
      else groups.set(key, [task]);
    }
    // An older revision that waited itself has nothing to go on with either.
    const begun = begunRevisions(this.#tasks.values());
    const { revision } = this.#service;
    for (const group of groups.values()) {
      const goesOn = group[0]!.revision !== revision && begun.has(group[0]!.revision);
      if (this.#standing.at === 'holds' || goesOn) this.#placeGroup(group);
      else for (const task of group) this.#sayWhere(task, this.#standing.why);
    }
  }

  /** Why it is nowhere. */
  #sayWhere(task: Task, message: string): void {
    if (task.message !== message) this.#put({ ...task, message });
  }

  /** Tasks of one key are placed together; those that must go to one node each have their own. */
  #seatKeyOf(task: Task): string {
    if (isPerNode(this.#service.spec)) return task.nodeName;
    if (this.#targets.has(task.id)) return task.id;
    const mode = this.#templateOf(task)?.networkMode ?? '';
    return sharedNetworkOf(mode) === undefined ? '' : String(task.slot);
  }

  #templateOf(task: Task): TaskTemplate | undefined {
    return this.#context.snapshot.revisionOf(this.#service.id, task.revision)?.template;
  }

  #placeGroup(tasks: readonly Task[]): void {
    const { books, now } = this.#context;
    for (const { id } of tasks) books.claims.release(id);
    const request = this.#groupRequest(tasks[0]!);
    let places = typeof request === 'string' ? undefined : books.scheduler.open(request);
    let nowhere = typeof request === 'string' ? request : '';
    for (const task of tasks) {
      const usage = nowhere === '' ? places?.pick() : undefined;
      const addresses = usage && takeAddresses(this.#context, task, this.#templateOf(task), usage.node);
      if (usage && addresses && typeof addresses !== 'string') {
        const { id: nodeId, name: nodeName } = usage.node;
        const generic = typeof request === 'string' ? [] : given(request.reservations.generic, usage);
        const assigned: Task = {
          ...task,
          ...addresses,
          state: 'assigned',
          nodeId,
          nodeName,
          generic,
          message: '',
          stateAtMs: now,
        };
        this.#put(assigned);
        books.plan(assigned, now);
        // Where the first task goes, the volumes are, and the others after it.
        if (typeof request !== 'string' && this.#claim(request, usage.node)) places = books.scheduler.open(request);
        continue;
      }
      if (typeof addresses === 'string') nowhere = addresses;
      nowhere ||= typeof request === 'string' ? request : whyNowhere(books.ledger, request);
      this.#unplaced++;
      this.#sayWhere(task, (typeof request !== 'string' && this.#room.forTask(task, request)) || nowhere);
    }
  }

  /** Writes down that the request's volumes are on the node, where that is news; true where it is. */
  #claim(request: Request, node: Node): boolean {
    const { news, names } = giveHomes(this.#context, request, node);
    for (const name of names) {
      if (this.#volumes.some(({ key }) => key === name)) continue;
      this.#volumes.push(this.#change('volume', name, this.#context.books.ledger.volume(name)));
    }
    return news;
  }

  /** What tasks like this one ask, or why nothing can meet it. */
  #groupRequest(task: Task, target = this.#targets.get(task.id)): Request | string {
    const { snapshot } = this.#context;
    const { id, spec } = this.#service;
    const record = snapshot.revisionOf(id, task.revision);
    if (!record) return `revision ${task.revision} of its service is not there`;
    const owner = networkOwner(snapshot, spec.project, record.template.networkMode, task);
    if (typeof owner === 'string') return owner;
    const perNode = isPerNode(spec);
    const only = perNode ? this.#nodeIdOf(task.nodeName) : ((owner?.nodeId as NodeId | undefined) ?? target);
    if (perNode && only === undefined) return `node ${task.nodeName} is gone`;
    try {
      const staying = stayingOf(this.#tasks.values(), task.revision);
      const shunned = shunnedNodes(this.#service, this.#tasks.values(), this.#context.now);
      return requestOf(id, spec, record.template, { only, shunned, staying });
    } catch (error) {
      if (isFault(error)) return describe(error);
      throw error;
    }
  }

  #nodeIdOf(name: string): NodeId | undefined {
    for (const node of this.#context.snapshot.all('node')) if (node.name === name) return node.id;
    return undefined;
  }

  /** With dnsrr too, where it stands for the service among those that may be called. */
  #giveVip(): void {
    const { snapshot, books, now } = this.#context;
    const { vip, id } = this.#service;
    if (vip !== '') return;
    const next = books.addresses.takeVip(snapshot.cluster?.vipNetwork ?? '', now) ?? '';
    if (next === '') return;
    this.#service = { ...this.#service, vip: next };
    books.addresses.setService(id, this.#service, now);
  }

  #autoscale(): void {
    const autoscaled = this.#context.autoscaled?.(this.#service);
    if (autoscaled) this.#service = { ...this.#service, autoscaled };
  }

  /** Tasks whose processes go on under the service's revision are tasks of it from here on, all at once: none of them stops. */
  #adopt(): void {
    const { snapshot, books } = this.#context;
    for (const [id, adopted] of adoptions(this.#service, this.#tasks.values(), snapshot, books.ledger))
      if (typeof adopted === 'string') this.#unadopted.set(id, adopted);
      else this.#put(adopted);
  }

  /** Tells every task to stop; takes all records away once none of them occupies a node. */
  #remove(): void {
    const { snapshot } = this.#context;
    const tasks = [...this.#tasks.values()];
    const why = 'the service was removed';
    if (stopsAfter(snapshot, this.#service)) return;
    this.#carryOut(tasks.filter(isActive).map((task) => ({ kind: 'stop', task, why })));
    if ([...this.#tasks.values()].some(occupiesNode)) return;
    for (const task of this.#tasks.values()) this.#forget(task);
    this.#others.push(...forgetHistory(snapshot, this.#service.id));
    this.#others.push(this.#change('service', this.#service.id, undefined));
  }

  #reap(seats: ReadonlyMap<string, Seat>, wanted: readonly Seat[]): void {
    const { now } = this.#context;
    const advice = reapTasks(this.#service, seats.values(), new Set(wanted.map(seatKey)), now);
    this.#wake(advice.wakeAtMs);
    this.#carryOut(advice.opinions.filter((opinion) => opinion.kind === 'forget'));
    this.#reapHistory();
  }

  #reapHistory(): void {
    this.#others.push(...reapHistory(this.#context.snapshot, this.#service, this.#tasks.values()));
  }

  #put(task: Task): void {
    this.#tasks.set(task.id, task);
    this.#touched.add(task.id);
    this.#context.books.ledger.setTask(task.id, task);
  }

  #forget(task: Task): void {
    this.#tasks.delete(task.id);
    this.#touched.add(task.id);
    this.#context.books.planForgotten(task.id);
  }

  #wake(atMs: number): void {
    this.#wakeAtMs = Math.min(this.#wakeAtMs, atMs);
  }

  #result(): Decision {
    const changes: Change[] = [...this.#volumes];
    for (const id of this.#touched) {
      const value = this.#tasks.get(id);
      if (value || this.#context.snapshot.task(id)) changes.push(this.#change('task', id, value));
    }
    // Tasks first: where one transaction cannot hold it all, a service's record goes after its last task.
    changes.push(...this.#others);
    const removed = this.#others.some((change) => change.table === 'service');
    if (!removed && this.#service !== this.#before) {
      const change = this.#change('service', this.#service.id, this.#service);
      // A job's iteration is written down no later than its first task.
      if (isJob(this.#service.spec)) changes.unshift(change);
      else changes.push(change);
    }
    return {
      changes,
      opinions: this.#opinions,
      wakeAtMs: this.#wakeAtMs,
      unplaced: this.#unplaced,
      waits: this.#standing.at !== 'holds',
      evicts: [...this.#room.evicts],
      more: this.#starts > mostStarts,
    };
  }

  #change<T extends Table>(table: T, key: string, value: Tables[T] | undefined): Change {
    const expect = this.#context.snapshot.get(table, key)?.modRevision ?? 0;
    return { table, key, value, expect } as unknown as Change;
  }
}
