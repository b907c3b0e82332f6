/** One node's session: greets it, takes its reports, and keeps it told what it should hold. */
import type {
  AgentMessage,
  AssignmentSet,
  ControlMessage,
  Hello,
  NodeNotice,
  OpenRelay,
  UsageBatch,
  TaskStatus as WireStatus,
} from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { AssignmentItem } from '#proto/model/assignment.ts';
import { trustOf } from '#proto/model/authority.ts';
import { contentKey } from '#proto/model/document.ts';
import { type NodeId, serviceId, type TaskId } from '#proto/model/ids.ts';
import { isAbsent, type TaskStatus } from '#proto/model/task.ts';
import { assignmentToWire, nodeFromWire, taskStatusFromWire, toWire } from '#proto/model/wire.ts';
import { digestsIn } from '#proto/shared-parts.ts';
import type { MessageStream } from '#proto/stream.ts';
import type { Successor } from '../leader.ts';
import type { Store } from '../store/store.ts';
import {
  credentialItem,
  type Dirty,
  type OpenContent,
  ownItemsOf,
  registriesOf,
  registryOf,
  taskItem,
  type Unseal,
} from './assign.ts';
import { partSize, partsOf, SentContents } from './contents.ts';
import { descriptionOf } from './description.ts';
import type { NoticeDesk } from './notices.ts';
import type { SharedSet } from './shared-set.ts';
import type { StatusWriter } from './status.ts';
import type { UsageDesk } from './usage.ts';
import { asUntold } from './withdrawal.ts';

export interface SessionParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  readonly writer: StatusWriter;
  readonly notices: NoticeDesk;
  readonly usage: UsageDesk;
  readonly unseal: Unseal;
  /** Opens a content of a config or secret. Faults: `corrupt`. */
  readonly openContent: OpenContent;
  /** What all are welcomed with. */
  readonly alike: () => { readonly heartbeatPeriodMs: number; readonly replicas: string[] };
  /** Of this replica's leadership; undefined while it does not lead. */
  readonly epoch: () => number | undefined;
  /** Of the cluster: where nodes are sent by who does not lead. */
  readonly leader: () => Successor | undefined;
  /** What this leadership tells all nodes. */
  readonly shared: () => SharedSet;
  /** Every change up to this revision that all nodes are to hear of has been broadcast. */
  readonly broadcastRevision: () => number;
  /** The node is not to hear yet that this task is to stop. */
  readonly withheld: (task: TaskId) => boolean;
  /** The node has said hello; called before it is told anything. */
  readonly greeted: () => void;
  /** `appliedRevision` is a newer one. */
  readonly applied: () => void;
}

/** Items whose digests are made in one turn: some milliseconds. */
const itemsOfTurn = 50;

/** A full set that has not been sent whole: what is shared in it, and the revision that it began at. */
interface Filling {
  /** Numbers of parts, those together that go in one message. */
  readonly bundles: readonly (readonly number[])[];
  next: number;
  readonly revision: number;
  /** Parts that the node holds as they are. */
  readonly kept: number[];
}

export class NodeSession {
  readonly node: NodeId;
  readonly number: number;
  /** When the node said hello (monotonic ms), where the session is live. */
  greetedAtMs = 0;
  /** The network revision the node says is in its kernel. */
  appliedRevision = 0;
  readonly #parts: SessionParts;
  readonly #stream: MessageStream<AgentMessage, ControlMessage>;
  /** greeting → live: before the Hello was taken nothing is sent, but to a node that was removed. */
  #live = false;
  /** The stream takes nothing more at the moment: the node reads too slowly. What changes meanwhile is not queued, but owed. */
  #choked = false;
  #filling: Filling | undefined;
  /** The next bundle of it is sent in a turn of its own. */
  #resuming: Timer | undefined;
  /** Digests of what the node held when it said hello; undefined: it is told everything. */
  #held: readonly string[] | undefined;
  /** Names of what changed and was not sent: it goes out as it is when its turn has come. */
  readonly #owed = { shared: new Set<string>(), tasks: new Set<string>(), registries: new Set<string>() };
  /** The newest revision of the network that the node was told whole. */
  #toldRevision = 0;
  /** Tasks that were lost with the node's silence: it is not to begin what it does not know. */
  #lost: ReadonlySet<TaskId> = new Set();
  #registries = new Set<string>();
  #contents = new SentContents();

  constructor(
    node: NodeId,
    number: number,
    stream: MessageStream<AgentMessage, ControlMessage>,
    parts: SessionParts,
    ended: (session: NodeSession) => void,
  ) {
    this.node = node;
    this.number = number;
    this.#parts = parts;
    this.#stream = stream;
    stream.listen({
      message: (message) => this.#take(message),
      drain: () => this.#caughtUp(),
      closed: () => ended(this),
    });
  }

  get live(): boolean {
    return this.#live;
  }

  close(fault?: Fault): void {
    this.#live = false;
    this.#resuming?.cancel();
    this.#stream.close(fault);
  }

  /** Sends the node to whoever leads, and ends. */
  redirect(): void {
    const leader = this.#parts.leader();
    if (leader) this.#send({ $case: 'redirect', value: leader });
    this.close(leader ? undefined : new Fault('unavailable', 'no control plane replica leads at the moment'));
  }

  /** The node was removed, now or while it was away: it is told to hold nothing any more, and not listened to. */
  expel(): void {
    const { revision } = this.#parts.store.snapshot;
    this.#sendSet({ revision, full: true, more: false, put: [], remove: [] });
    this.close(notMember(this.node));
  }

  openRelay(request: OpenRelay): boolean {
    if (!this.#live) return false;
    this.#send({ $case: 'openRelay', value: request });
    return true;
  }

  #send(body: NonNullable<ControlMessage['body']>): void {
    this.#sendMessage({ body });
  }

  #sendMessage(message: ControlMessage): void {
    if (!this.#stream.send(message)) this.#choked = true;
  }

  #take(message: AgentMessage): void {
    const body = message.body;
    try {
      switch (body?.$case) {
        case 'hello':
          this.#greet(body.value);
          break;
        case 'described':
          if (this.#live) this.#parts.writer.describe(this.node, descriptionOf(nodeFromWire(body.value)));
          break;
        case 'status':
          if (this.#live) this.#report(body.value.tasks);
          break;
        case 'notices':
          if (this.#live) this.#hear(body.value.notices);
          break;
        case 'usage':
          if (this.#live) this.#measure(body.value);
          break;
        case 'wake':
          if (this.#live) for (const id of body.value.serviceIds) this.#parts.usage.called(serviceId(id), this.node);
          break;
        case 'applied':
          if (!this.#live || body.value.revision <= this.appliedRevision) break;
          this.appliedRevision = body.value.revision;
          this.#parts.applied();
          break;
      }
    } catch (error) {
      this.#parts.log.warn('session ended: the agent sent what cannot be read', { node: this.node, error });
      this.close(error instanceof Fault ? error : new Fault('invalid', describe(error)));
    }
  }

  #hear(notices: readonly NodeNotice[]): void {
    const node = this.#parts.store.snapshot.node(this.node);
    if (node) this.#parts.notices.take(node, notices);
  }

  /** A node speaks of its own tasks alone. */
  #measure(batch: UsageBatch): void {
    const { snapshot } = this.#parts.store;
    this.#parts.usage.take(batch, (id) => {
      const task = snapshot.task(id);
      return task?.nodeId === this.node ? task.serviceId : undefined;
    });
  }

  /** What only a newer agent can mean is passed over: its other tasks are told of all the same. */
  #report(tasks: readonly WireStatus[]): void {
    const { writer, log } = this.#parts;
    const statuses: TaskStatus[] = [];
    const unreadable: string[] = [];
    for (const task of tasks) {
      try {
        statuses.push(taskStatusFromWire(task));
      } catch (error) {
        if (!isFault(error, 'invalid')) throw error;
        unreadable.push(`${task.taskId}: ${error.message}`.slice(0, 200));
      }
    }
    if (unreadable.length > 0)
      log.warn('a node says what this version cannot read: upgrade the control plane', {
        node: this.node,
        why: unreadable.slice(0, 5).join(', '),
        count: unreadable.length,
      });
    writer.report(this.node, statuses);
  }

  #greet(hello: Hello): void {
    const { store, writer, log } = this.#parts;
    const epoch = this.#parts.epoch();
    if (epoch === undefined) {
      this.redirect();
      return;
    }
    if (hello.epoch > epoch) {
      this.close(new Fault('unavailable', `this replica leads epoch ${epoch}, the node has seen ${hello.epoch}`));
      return;
    }
    if (!store.snapshot.node(this.node)) {
      this.expel();
      return;
    }
    this.#report(hello.tasks);
    this.#reportLost(hello.tasks);
    if (hello.node) writer.describe(this.node, descriptionOf(nodeFromWire(hello.node)), true);
    this.#live = true;
    this.greetedAtMs = this.#parts.clock.monotonic();
    this.#held = digestsIn(hello.held);
    this.#parts.greeted();
    log.info('node connected', { node: this.node, epoch, count: hello.tasks.length });
    this.welcome();
    this.sendAll();
  }

  /** What the node was silent about for too long to be given again, and knows nothing of. */
  #reportLost(known: readonly WireStatus[]): void {
    const { store, clock, writer } = this.#parts;
    const named = new Set<string>(known.map(({ taskId }) => taskId));
    const lost = [...store.snapshot.tasksOnNode(this.node)].filter((task) => isAbsent(task) && !named.has(task.id));
    this.#lost = new Set(lost.map(({ id }) => id));
    const now = clock.now();
    const message = 'its node does not know it any more';
    const end = { state: 'orphaned', message, error: '', atMs: now, finishedAtMs: now, health: '', pid: 0 } as const;
    writer.report(
      this.node,
      lost.map(({ id: taskId, startedAtMs, exitCode, oomKilled, imageDigest }) => {
        return { taskId, startedAtMs, exitCode, oomKilled, imageDigest, ...end };
      }),
    );
  }

  /** Says what the node is in this cluster; again when its record changes. */
  welcome(): void {
    const { snapshot } = this.#parts.store;
    const epoch = this.#parts.epoch();
    const node = snapshot.node(this.node);
    const cluster = snapshot.cluster;
    if (epoch === undefined || !node || !cluster) return;
    this.#send({
      $case: 'welcome',
      value: {
        session: this.number,
        epoch,
        node: toWire(node),
        cluster: toWire(cluster),
        ...this.#parts.alike(),
        caPem: snapshot.authority ? trustOf(snapshot.authority) : '',
      },
    });
  }

  /** The full set, in parts: as fast as the node takes them. Those that it said it holds are not sent, but named. */
  sendAll(): void {
    const { shared, store, broadcastRevision } = this.#parts;
    const unfinished = this.#filling;
    let { revision } = store.snapshot;
    if (!unfinished) this.#owed.shared.clear();
    // Of one that was not sent whole the node may hold what has gone since: that is taken from it afterwards.
    else
      revision = this.#owed.shared.size > 0 ? unfinished.revision : Math.max(unfinished.revision, broadcastRevision());
    this.#filling = { bundles: shared().bundles(), next: 0, revision, kept: [] };
    this.#pump();
  }

  /** Sends what is due, while the stream takes it. */
  #pump(): void {
    while (this.#live && !this.#choked) {
      const { shared, tasks, registries } = this.#owed;
      if (this.#filling) {
        if (!this.#fill(this.#filling)) return;
      } else if (shared.size + tasks.size + registries.size > 0) this.#sendOwed();
      else return;
    }
  }

  /** The next of a full set. False: it comes by itself a turn later, for looking through all of a large cluster at once would hold up everybody. */
  #fill(filling: Filling): boolean {
    if (this.#resuming) return false;
    const bundle = filling.bundles[filling.next];
    if (!bundle) {
      this.#endFilling(filling);
      return true;
    }
    const shared = this.#parts.shared();
    if (this.#held && shared.digest(bundle) > itemsOfTurn) {
      this.#resuming = this.#parts.clock.after(0, () => {
        this.#resuming = undefined;
        this.#pump();
      });
      return false;
    }
    filling.next++;
    const lacking: number[] = [];
    for (const part of bundle)
      if (this.#held && this.#held[part] === shared.digestOf(part)) filling.kept.push(part);
      else lacking.push(part);
    const message = shared.messageOf(lacking);
    if (message) this.#sendMessage(message);
    return true;
  }

  /** The node's own part of the full set, which is its last. What is shared and has changed since it began follows as owed. */
  #endFilling({ revision, kept }: Filling): void {
    const { snapshot } = this.#parts.store;
    const items = ownItemsOf(snapshot, this.node, this.#parts.unseal)
      .filter((item) => item.kind !== 'task' || !this.#lost.has(item.task.id))
      .map((item) => this.#asToBeTold(item));
    this.#registries = registriesOf(snapshot, this.node);
    this.#contents = new SentContents();
    const contents = items.flatMap((item) => (item.kind === 'task' ? this.#contentsFor(item) : []));
    this.#filling = undefined;
    this.#held = undefined;
    this.#owed.tasks.clear();
    this.#owed.registries.clear();
    const parts = [...partsOf([...contents, ...items])];
    for (const [index, part] of parts.entries()) {
      const more = index + 1 < parts.length;
      const put = part.map(assignmentToWire);
      this.#sendSet({ revision, full: true, more, put, remove: [], kept: more ? [] : kept });
    }
    this.#toldRevision = revision;
  }

  /** Only what a task of this node names is ever opened for it. What cannot be opened, the task waits for. */
  #contentsFor(item: Extract<AssignmentItem, { kind: 'task' }>): AssignmentItem[] {
    const { store, openContent, log } = this.#parts;
    return this.#contents.needed(item).flatMap((ref) => {
      const { type, name, version } = ref;
      const sealed = store.snapshot.get('content', contentKey(ref))?.value;
      try {
        if (!sealed) throw new Fault('not-found', `version ${version} of ${type} ${name} is not in the store`);
        return [{ kind: 'content', type, name, version, data: openContent(sealed) }];
      } catch (error) {
        if (!isFault(error)) throw error;
        log.error('a task does not get its config or secret', { node: this.node, task: item.task.id, error });
        return [];
      }
    });
  }

  #asToBeTold(item: AssignmentItem): AssignmentItem {
    if (item.kind !== 'task' || !this.#parts.withheld(item.task.id)) return item;
    return { ...item, task: asUntold(item.task) };
  }

  /** What changed for this node alone. */
  sendOwn(dirty: Pick<Dirty, 'tasks' | 'credentials'>): void {
    if (!this.#live) return;
    for (const id of dirty.tasks.get(this.node) ?? []) this.#owed.tasks.add(id);
    for (const registry of dirty.credentials) if (this.#registries.has(registry)) this.#owed.registries.add(registry);
    this.#pump();
  }

  /** An increment that says all there is of `keys`; a message made once for many sessions is encoded once (see server.ts). */
  sendShared(message: ControlMessage, keys: Iterable<string>, revision: number): void {
    if (!this.#live) return;
    if (this.#choked || this.#filling) {
      for (const key of keys) this.#owed.shared.add(key);
      return;
    }
    this.#sendMessage(message);
    this.#toldRevision = revision;
  }

  /** One increment: what is shared first, for it is what tasks stand on. Only who has all of that has the revision. */
  #sendOwed(): void {
    const { shared } = this.#owed;
    const put: AssignmentSet['put'] = [];
    const remove: string[] = [];
    for (const key of shared) {
      if (put.length + remove.length === partSize) break;
      shared.delete(key);
      const item = this.#parts.shared().item(key);
      if (item) put.push(item);
      else remove.push(key);
    }
    if (shared.size > 0) {
      this.#sendSet({ revision: this.#toldRevision, full: false, more: false, put, remove });
      return;
    }
    // A full set may have said more than was broadcast.
    const revision = Math.max(this.#toldRevision, this.#parts.broadcastRevision());
    const own = this.#takeOwn();
    const parts = [...partsOf(own.put)];
    for (const [index, part] of parts.entries()) {
      const isLast = index + 1 === parts.length;
      put.push(...part.map(assignmentToWire));
      if (isLast) remove.push(...own.remove);
      if (put.length + remove.length === 0) break;
      const set = { revision: isLast ? revision : this.#toldRevision, full: false, more: false };
      this.#sendSet({ ...set, put: put.splice(0), remove: remove.splice(0) });
    }
    this.#toldRevision = revision;
  }

  /** What is owed of the node's own. */
  #takeOwn(): { put: AssignmentItem[]; remove: string[] } {
    const { store, unseal, withheld } = this.#parts;
    const { snapshot } = store;
    const { tasks, registries } = this.#owed;
    const put: AssignmentItem[] = [];
    const remove: string[] = [];
    const gone: string[] = [];
    for (const id of tasks) {
      const task = snapshot.get('task', id)?.value;
      if (task && withheld(task.id)) continue;
      const item = task?.nodeId === this.node ? taskItem(snapshot, task) : undefined;
      if (!item) {
        gone.push(id);
        continue;
      }
      put.push(...this.#contentsFor(item));
      const registry = registryOf(item.template.container.image);
      if (!this.#registries.has(registry)) {
        this.#registries.add(registry);
        const credential = credentialItem(snapshot, registry, unseal);
        if (credential) put.push(credential);
      }
      put.push(item);
    }
    // After those that come: what one of them needs too is not taken away.
    for (const id of gone) remove.push(`task/${id}`, ...this.#contents.dropped(id).map((key) => `content/${key}`));
    for (const registry of registries) {
      const credential = credentialItem(snapshot, registry, unseal);
      if (credential) put.push(credential);
      else remove.push(`credential/${registry}`);
    }
    tasks.clear();
    registries.clear();
    return { put, remove };
  }

  #sendSet(set: Omit<AssignmentSet, 'epoch' | 'sentAtMs' | 'kept'> & Partial<AssignmentSet>): void {
    const epoch = this.#parts.epoch();
    if (epoch === undefined) return;
    this.#send({ $case: 'assignments', value: { kept: [], ...set, epoch, sentAtMs: this.#parts.clock.now() } });
  }

  #caughtUp(): void {
    this.#choked = false;
    this.#pump();
  }
}

/** The answer to a node that has no record, or not with this certificate. */
export function notMember(node: NodeId): Fault {
  return new Fault('not-found', `node ${node} is not a member of this cluster`, {
    remedy:
      'it was removed, or another machine joined in its place: delete `identity` in its data directory, and join it again with a new token',
  });
}
