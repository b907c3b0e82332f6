/** Nodes and addresses for the tasks of a service that have none, or why they have none. */

import { type Request, requestOf } from '#control-plane/scheduler/filters.ts';
import { given } from '#control-plane/scheduler/generic.ts';
import type { Usage } from '#control-plane/scheduler/ledger.ts';
import { whyNowhere } from '#control-plane/scheduler/place.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';
import { isPerNode } from '#proto/model/job.ts';
import { sharedNetworkOf } from '#proto/model/network.ts';
import { type Node, unaddressedComponent } from '#proto/model/node.ts';
import { isActive, isIsolated, occupiesNode, type Task, waitsForSeat } from '#proto/model/task.ts';
import { MakeRoom } from './make-room.ts';
import { begunRevisions, called, leavingOf, stayingOf } from './seats.ts';
import type { ServiceDraft } from './service-draft.ts';
import { networkOwner } from './shared-network.ts';
import { shunnedNodes } from './shunned.ts';
import { singletonsOf } from './singleton-gate.ts';
import type { Standing } from './start-order.ts';
import { takeAddresses } from './take-addresses.ts';
import { giveHomes } from './volume-homes.ts';

export class TaskPlaces {
  readonly #draft: ServiceDraft;
  readonly #room: MakeRoom;
  /** Where tasks must go that were begun for it. */
  readonly #targets = new Map<TaskId, NodeId>();
  #isolated: readonly Task[] | undefined;
  #unplaced = 0;

  constructor(draft: ServiceDraft) {
    this.#draft = draft;
    this.#room = new MakeRoom(draft.context, draft.service.spec);
  }

  /** How many got none. */
  get unplaced(): number {
    return this.#unplaced;
  }

  /** Services of which tasks must leave for these. */
  get evicts(): readonly ServiceId[] {
    return [...this.#room.evicts];
  }

  /** Whether the node takes the task now; it goes there then and nowhere else. */
  aim(task: Task, node: NodeId): boolean {
    const request = this.#requestOf(task, node);
    if (typeof request === 'string' || !this.#draft.context.books.scheduler.open(request).pick()) return false;
    this.#targets.set(task.id, node);
    return true;
  }

  /** One filtering for all tasks that ask the same. `standing`: whether tasks of the service's revision may begin. */
  give(standing: Standing): void {
    const { service, tasks } = this.#draft;
    const groups = new Map<string, Task[]>();
    for (const task of tasks.values()) {
      if (task.nodeId !== '' || !isActive(task)) continue;
      const key = `${task.revision}/${task.wanted}/${this.#groupOf(task)}`;
      const group = groups.get(key);
      if (group) group.push(task);
      else groups.set(key, [task]);
    }
    // An older revision that waited itself has nothing to go on with either.
    const begun = begunRevisions(tasks.values());
    for (const group of groups.values()) {
      const goesOn = group[0]!.revision !== service.revision && begun.has(group[0]!.revision);
      const mayBegin = standing.at === 'holds' || goesOn;
      const why = mayBegin ? (waitsForSeat(group[0]!) ? '' : this.#whyNotYet()) : standing.why;
      if (why === '') this.#giveGroup(service.spec.failover === 'singleton' ? group.slice(0, 1) : group);
      else for (const task of group) this.#sayWhy(task, why);
    }
  }

  /** One half of the gate of singletons: no task of it is given a node to run on while another one may run. */
  #whyNotYet(): string {
    const { service, tasks } = this.#draft;
    const [other] = singletonsOf(service, tasks.values());
    return other
      ? `waits until ${called(other)} on ${other.nodeName} has surely ended: a singleton is never twice`
      : '';
  }

  /** Tasks of one group are placed together; those that must go to one node each have their own. */
  #groupOf(task: Task): string {
    if (isPerNode(this.#draft.service.spec)) return task.nodeName;
    if (this.#targets.has(task.id)) return task.id;
    const mode = this.#draft.templateOf(task)?.networkMode ?? '';
    return sharedNetworkOf(mode) === undefined ? '' : String(task.slot);
  }

  #giveGroup(tasks: readonly Task[]): void {
    const { context } = this.#draft;
    const { books } = context;
    for (const { id } of tasks) books.claims.release(id);
    const request = this.#requestOf(tasks[0]!, this.#targets.get(tasks[0]!.id));
    if (typeof request === 'string') {
      this.#unplaced += tasks.length;
      for (const task of tasks) this.#sayWhy(task, request);
      return;
    }
    let places = books.scheduler.open(request);
    let nowhere = '';
    for (const task of tasks) {
      const usage = nowhere === '' ? places.pick() : undefined;
      const addresses = usage && this.#assignTo(task, request, usage);
      if (addresses === true) {
        // Where the first task goes, the volumes are, and the others after it.
        if (this.#giveHomes(request, usage!.node)) places = books.scheduler.open(request);
        continue;
      }
      if (waitsForSeat(task) && this.#giveRoomOfForerunner(task, request)) continue;
      if (typeof addresses === 'string') nowhere = addresses;
      nowhere ||= whyNowhere(books.ledger, request);
      this.#unplaced++;
      this.#sayWhy(task, this.#isolatedLeaves(task) || this.#room.forTask(task, request) || nowhere);
    }
  }

  /** The task with the addresses that it had to wait for, or why it has none yet. */
  addressed(task: Task): Task | string {
    const { context } = this.#draft;
    const template = this.#draft.templateOf(task);
    const node = context.snapshot.node(task.nodeId as NodeId);
    if (task.address !== '' || template?.networkMode !== '' || !node) return task;
    const addresses = takeAddresses(context, task, template, node);
    if (addresses && typeof addresses !== 'string') return { ...task, ...addresses };
    this.#unplaced++;
    return addresses ?? `node ${node.name} has no address left`;
  }

  /** True: it has its place there now. A text, or undefined: it has no address there. */
  #assignTo(task: Task, request: Request, usage: Usage): true | string | undefined {
    const addresses = takeAddresses(this.#draft.context, task, this.#draft.templateOf(task), usage.node);
    if (!addresses || typeof addresses === 'string') return addresses;
    this.#assign({ ...task, ...addresses, generic: given(request.reservations.generic, usage) }, usage.node);
    return true;
  }

  /** Where nothing else is free it gets the room of the task that has its seat, and runs when that has ended. False: that does not help. */
  #giveRoomOfForerunner(task: Task, request: Request): boolean {
    const { books } = this.#draft.context;
    const before = this.#draft.tasks.get(task.successorOf as TaskId);
    if (!before || !occupiesNode(before)) return false;
    books.ledger.setTask(before.id, undefined);
    // Only a rule about where others are may open another node than its own.
    const only = request.affinities.length === 0 ? (before.nodeId as NodeId) : request.only;
    const usage = books.scheduler.open({ ...request, only }).pick();
    const addresses = usage && this.#assignTo(task, request, usage);
    // There is no address for both, as where it is fixed: it has one when it is to run, and what needs none is prepared.
    const isApart = usage && addresses !== true && unaddressedComponent in usage.node.components;
    if (isApart) this.#assign({ ...task, generic: given(request.reservations.generic, usage) }, usage.node);
    if (usage && (addresses === true || isApart)) this.#giveHomes(request, usage.node);
    books.ledger.setTask(before.id, before);
    if (!usage || addresses === true || isApart) return usage !== undefined;
    // Of agents of before nothing is prepared without one.
    const why = addresses ?? `node ${usage.node.name} has no address for both`;
    this.#draft.put({ ...before, wanted: 'shutdown', why: `${task.why} (it goes first: ${why})` });
    this.#draft.put({ ...task, wanted: 'running', successorOf: '' });
    this.#unplaced++;
    return true;
  }

  /** What is isolated of its seat may be what is in its way: it has been looked at for long enough. Empty: there is nothing. */
  #isolatedLeaves(task: Task): string {
    this.#isolated ??= [...this.#draft.tasks.values()].filter(isIsolated);
    const other = this.#isolated.find(
      ({ slot, nodeName }) => slot === task.slot && (slot > 0 || nodeName === task.nodeName),
    );
    if (!other) return '';
    const why = `${called(task)} found no place beside it`;
    this.#draft.put({ ...other, wanted: 'shutdown', why });
    return `waits for room beside ${called(other)}, which was isolated and stops`;
  }

  #assign(task: Task, { id: nodeId, name: nodeName }: Node): void {
    const { books, now } = this.#draft.context;
    const singleton = this.#draft.service.spec.failover === 'singleton';
    const assigned: Task = { ...task, state: 'assigned', nodeId, nodeName, singleton, message: '', stateAtMs: now };
    this.#draft.put(assigned);
    books.plan(assigned, now);
    if (singleton) this.#draft.guard(nodeId);
  }

  #sayWhy(task: Task, message: string): void {
    if (task.message !== message) this.#draft.put({ ...task, message });
  }

  /** Writes down that the request's volumes are on the node; true where that is news. */
  #giveHomes(request: Request, node: Node): boolean {
    const { news, names } = giveHomes(this.#draft.context, request, node);
    for (const name of names) this.#draft.putVolume(name);
    return news;
  }

  /** What tasks like this one ask, or why nothing can meet it. `target`: the one node it may go to. */
  #requestOf(task: Task, target: NodeId | undefined): Request | string {
    const { context, service, tasks } = this.#draft;
    const { id, spec } = service;
    const template = this.#draft.templateOf(task);
    if (!template) return `revision ${task.revision} of its service is not there`;
    const owner = networkOwner(context.snapshot, spec.project, template.networkMode, task);
    if (typeof owner === 'string') return owner;
    const perNode = isPerNode(spec);
    const only = perNode ? this.#draft.nodeIdOf(task.nodeName) : ((owner?.nodeId as NodeId | undefined) ?? target);
    if (perNode && only === undefined) return `node ${task.nodeName} is gone`;
    try {
      const shunned = shunnedNodes(service, tasks.values(), context.now);
      // One node is not ranked: the groups of a global service, one for each node, need not count all of its tasks.
      if (only !== undefined) return requestOf(id, spec, template, { only, shunned });
      const staying = stayingOf(tasks.values(), task.revision);
      const leaving = waitsForSeat(task) ? { leaving: leavingOf(tasks) } : {};
      return requestOf(id, spec, template, { shunned, staying, ...leaving });
    } catch (error) {
      if (isFault(error)) return describe(error);
      throw error;
    }
  }
}
