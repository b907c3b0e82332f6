/** All sessions of this replica: whoever leads serves them, whoever follows sends them on. No sockets in here: the simulator runs it as it is. */
import type { AgentMessage, AssignmentSet, Beat, BeatAck, ControlMessage } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { KernelProbe } from '#proto/kernel-probe.ts';
import type { Leadership } from '#proto/model/cluster.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import type { MessageStream } from '#proto/stream.ts';
import type { Successor } from '../leader.ts';
import { leaseMs } from '../reconcilers/fence.ts';
import type { AgentSeen } from '../reconcilers/node-health.ts';
import type { Applied, Delta } from '../store/records.ts';
import type { Store } from '../store/store.ts';
import { mark, nothingDirty, type OpenContent, type Unseal } from './assign.ts';
import { BeatLiveness } from './liveness.ts';
import { type Notice, NoticeDesk } from './notices.ts';
import { RelayDesk } from './relay.ts';
import { NodeSession, notMember } from './session.ts';
import { SharedSet, staleKeys } from './shared-set.ts';
import { StatusWriter } from './status.ts';
import { UsageDesk } from './usage.ts';
import { isLeaving, leavesService, type Sender, Withdrawals } from './withdrawal.ts';

export interface DispatchParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** This run of this replica leads by that key (`Leader.wrote`). */
  readonly leadsBy: (leadership: Leadership) => boolean;
  /** Asks the kernel of a host; undefined: nodes are judged by silence alone. */
  readonly probe?: KernelProbe;
  /** The store has confirmed our leadership so lately that we may grant leases (`confirmedMs`). */
  readonly mayGrant: () => boolean;
  /** HOST:PORT of all replicas, for nodes to be connected with them; nothing is said of them unless told. */
  readonly replicas?: () => readonly string[];
  /** Opens the sealed password of a login. */
  readonly unseal: Unseal;
  readonly openContent: OpenContent;
  /** Hears what nodes say has happened on them. */
  readonly notice?: (notice: Notice) => void;
}

const agentConditions = ['running', 'stalled', 'stopped', 'gone'] as const;
/** How often agents beat. */
const heartbeatPeriodMs = 200;
/** Endpoint changes within this long of the last go out together: a burst of starts is a few messages, not one for each. */
const endpointTickMs = 10;

export class Dispatch {
  readonly liveness: BeatLiveness;
  readonly usage: UsageDesk;
  readonly relays: RelayDesk;
  readonly #parts: DispatchParts;
  readonly #writer: StatusWriter;
  readonly #notices: NoticeDesk;
  readonly #sessions = new Map<NodeId, NodeSession>();
  /** The newest of each node. */
  readonly #beatStreams = new Map<NodeId, MessageStream<Beat, BeatAck>>();
  readonly #unsubscribe: (() => void)[] = [];
  #lastSession = 0;
  #servedEpoch: number | undefined;
  /** Who says to lead, while the store is not heard. */
  #successor: Successor | undefined;
  /** Undefined while nobody has a session. */
  #shared: SharedSet | undefined;
  /** Keys of what changed, and all nodes are to hear of at the next broadcast. */
  readonly #stale = new Set<string>();
  /** The first revision that is not broadcast, where something is stale. */
  #staleSince = 0;
  #tick: Timer | undefined;
  #broadcastAtMs = Number.NEGATIVE_INFINITY;
  readonly #withdrawals = new Withdrawals();
  /** Who has applied this holds all withdrawals so far. */
  #withdrawnRevision = 0;
  /** Of the next look at what is withheld, and when it is due (monotonic ms). */
  #look: { readonly timer: Timer; readonly atMs: number } | undefined;

  constructor(parts: DispatchParts) {
    this.#parts = parts;
    const { store, clock, random } = parts;
    this.liveness = new BeatLiveness(
      clock,
      (node) => {
        const session = this.#sessions.get(node);
        return session?.live ? session.appliedRevision : undefined;
      },
      this.#kernelProbes(),
    );
    this.usage = new UsageDesk(clock);
    this.relays = new RelayDesk({
      clock,
      random,
      ask: (node, request) => this.#sessions.get(node)?.openRelay(request) ?? false,
    });
    const epoch = () => this.epoch;
    this.#notices = new NoticeDesk(clock, (notice) => parts.notice?.(notice));
    this.#writer = new StatusWriter({ store, clock, log: parts.log.with('status'), epoch });
    this.#servedEpoch = this.epoch;
    this.#unsubscribe.push(
      store.subscribe((delta) => this.#changed(delta)),
      store.onLeadership(() => this.#leadershipChanged()),
    );
    if (this.#servedEpoch !== undefined) this.#withholdAll();
  }

  /** Of this replica's leadership; undefined while it follows. */
  get epoch(): number | undefined {
    const { leadership } = this.#parts.store;
    if (!leadership || this.#leader !== leadership) return undefined;
    return this.#parts.leadsBy(leadership) ? leadership.epoch : undefined;
  }

  /** Who leads, as far as this replica knows. */
  get #leader(): Leadership | Successor | undefined {
    const { leadership } = this.#parts.store;
    return (this.#successor?.epoch ?? 0) > (leadership?.epoch ?? 0) ? this.#successor : leadership;
  }

  /** Another replica leads, which the store has not told yet: the nodes that are still here go there. */
  succeeded(by: Successor): void {
    this.#successor = by;
    this.#leadershipChanged();
  }

  /** Nodes with a session here. */
  connected(): NodeId[] {
    return [...this.#sessions.keys()];
  }

  /** A session that `node` has dialled; it and, where there are certificates, its enrolment are as the certificate says. */
  connect(
    node: NodeId,
    stream: MessageStream<AgentMessage, ControlMessage>,
    certificate?: { readonly enrolment: string | undefined },
  ): void {
    const session = new NodeSession(
      node,
      ++this.#lastSession,
      stream,
      {
        store: this.#parts.store,
        clock: this.#parts.clock,
        log: this.#parts.log,
        writer: this.#writer,
        notices: this.#notices,
        usage: this.usage,
        unseal: this.#parts.unseal,
        openContent: this.#parts.openContent,
        alike: () => ({ heartbeatPeriodMs, replicas: [...(this.#parts.replicas?.() ?? [])] }),
        epoch: () => this.epoch,
        leader: () => this.#leader,
        shared: () => this.#sharedSet(),
        broadcastRevision: () => (this.#stale.size > 0 ? this.#staleSince - 1 : this.#parts.store.snapshot.revision),
        greeted: () => this.#greeted(node),
        withheld: (task) => this.#withdrawals.holds(task),
        applied: () => {
          this.#withdrawals.caughtUp(node);
          this.#lookSoon(0);
          if (this.#parts.store.snapshot.node(node)?.fenced) this.liveness.tell(node);
        },
      },
      (ended) => {
        if (this.#sessions.get(node) === ended) {
          this.#sessions.delete(node);
          this.#parts.log.info('node disconnected', { node });
        }
      },
    );
    if (this.epoch === undefined) {
      session.redirect();
      return;
    }
    const record = this.#parts.store.snapshot.node(node);
    if (record && certificate && certificate.enrolment !== record.enrolment) {
      // Another machine has joined in its place: what runs on this one runs there, or elsewhere.
      session.expel();
      return;
    }
    this.#sessions.get(node)?.close(new Fault('conflict', 'the node has opened a newer session'));
    this.#sessions.set(node, session);
  }

  /** The stream of beats of `node`. */
  beats(
    node: NodeId,
    stream: MessageStream<Beat, BeatAck>,
    certificate?: { readonly enrolment: string | undefined },
  ): void {
    stream.listen({
      message: (beat) => {
        const epoch = this.epoch;
        if (epoch === undefined) {
          stream.close(new Fault('unavailable', 'this replica does not lead'));
          return;
        }
        const record = this.#parts.store.snapshot.get('node', node);
        if (!record || (certificate && certificate.enrolment !== record.value.enrolment)) {
          stream.close(notMember(node));
          return;
        }
        this.#beatStreams.set(node, stream);
        this.liveness.beat(node, conditionIn(beat));
        this.liveness.told(node, beat.atMs);
        for (const { nodeId: other, answered } of beat.probes) this.liveness.probed(node, other as NodeId, answered);
        stream.send({
          sequence: beat.sequence,
          epoch,
          leaseMs: this.#leaseOf(record.value, record.modRevision),
          probes: [],
        });
      },
      closed: () => {
        // Where another watchdog has taken over, the end of the first one says nothing.
        if (this.#beatStreams.get(node) !== stream) return;
        this.#beatStreams.delete(node);
        this.liveness.hungUp(node);
      },
    });
  }

  /** What silent hosts are probed with; without a probe, as in tests of sessions alone, silence is all there is. */
  #kernelProbes(): ConstructorParameters<typeof BeatLiveness>[2] {
    const { store, clock, random, probe } = this.#parts;
    if (!probe) return undefined;
    const heardLately = (node: NodeId) =>
      clock.monotonic() - (this.liveness.lastBeatAt(node) ?? 0) < 2 * heartbeatPeriodMs;
    return {
      random,
      probe,
      addressOf: (node) => store.snapshot.node(node)?.address,
      peersOf: (node) => {
        const peers = [...this.#beatStreams.keys()].filter((peer) => peer !== node && heardLately(peer));
        const first = peers.length === 0 ? 0 : random.int(peers.length);
        return [...peers.slice(first), ...peers.slice(0, first)];
      },
      ask: (peer, node, address) => {
        const [stream, epoch] = [this.#beatStreams.get(peer), this.epoch];
        if (!stream || epoch === undefined) return false;
        // No answer to a beat: it acknowledges none, and grants nothing.
        stream.send({ sequence: 0, epoch, leaseMs: 0, probes: [{ nodeId: node, address }] });
        return true;
      },
    };
  }

  /** For so long after this beat was sent singletons may run on the node; 0: it is granted nothing. */
  #leaseOf(node: Node, modRevision: number): number {
    const granted = !node.fenced && !this.liveness.withheld(node.id, modRevision) && this.#parts.mayGrant();
    return granted ? leaseMs : 0;
  }

  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#tick?.cancel();
    this.#look?.timer.cancel();
    this.#withdrawals.clear();
    this.#writer.close();
    for (const session of this.#sessions.values()) {
      session.close(new Fault('unavailable', 'this control plane replica is stopping'));
    }
    this.#sessions.clear();
  }

  #leadershipChanged(): void {
    const epoch = this.epoch;
    if (epoch === this.#servedEpoch) return;
    this.#servedEpoch = epoch;
    this.liveness.reset();
    this.usage.reset();
    this.#writer.clear();
    this.#shared = undefined;
    this.#stale.clear();
    this.#withdrawals.clear();
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const session of sessions) session.redirect();
    if (epoch !== undefined) this.#withholdAll();
  }

  /** What the last leader told nobody knows: stops wait for the evidence of this one. */
  #withholdAll(): void {
    const { snapshot } = this.#parts.store;
    this.#withdrawnRevision = snapshot.revision;
    this.#withhold(snapshot.revision, [...snapshot.all('task')].filter(isLeaving));
  }

  /** What it could not be told while it was away waits for the others as if it were told to stop now. */
  #greeted(node: NodeId): void {
    this.liveness.beat(node);
    const leaving = [...this.#parts.store.snapshot.tasksOnNode(node)].filter(isLeaving);
    this.#withdrawals.caughtUp(node);
    this.#withhold(this.#withdrawnRevision, leaving);
    this.#lookSoon(0);
  }

  #withhold(revision: number, tasks: readonly Task[]): void {
    this.#withdrawals.withhold(revision, tasks, this.#parts.clock.monotonic());
    this.#lookLater();
  }

  /** Stops of this step are withheld; those of tasks that ended meanwhile need not be any more. */
  #withdraw(delta: Delta): void {
    const leaving: Task[] = [];
    for (const change of delta.changes) {
      // Who is down is waited for no longer.
      if (change.table === 'node') this.#lookSoon(0);
      if (change.table !== 'task') continue;
      const { before, after } = change;
      if (leavesService(before, after)) leaving.push(after);
      else if (!after || !occupiesNode(after)) this.#withdrawals.drop(change.key as TaskId);
    }
    if (leaving.length === 0) return;
    this.#withdrawnRevision = delta.revision;
    this.#withhold(delta.revision, leaving);
  }

  /** Whoever may have a way to tasks in its kernel, whether or not its agent is there at the moment. */
  *#senders(): Generator<Sender> {
    for (const node of this.#parts.store.snapshot.all('node')) {
      const session = this.#sessions.get(node.id);
      if (node.subnet === '' || !(node.state === 'ready' || session?.live)) continue;
      yield { id: node.id, session: session?.live ? session : undefined };
    }
  }

  /** Tells nodes of the stops that need not be withheld any more. */
  #releaseStops(): void {
    const released = this.#withdrawals.release(this.#senders(), this.#parts.clock.monotonic());
    for (const { id, session } of this.#withdrawals.takeGivenUp()) {
      const why = session ? 'it has not said that it sends to them no more' : 'its agent is away';
      const { store, log } = this.#parts;
      log.warn('tasks are stopped although a node may still send to them', {
        node: store.snapshot.node(id)?.name ?? id,
        why,
      });
    }
    for (const [node, tasks] of released) {
      this.#sessions.get(node)?.sendOwn({ ...nothingDirty(), tasks: new Map([[node, tasks]]) });
    }
    this.#lookLater();
  }

  #lookLater(): void {
    const now = this.#parts.clock.monotonic();
    const deadlineMs = this.#withdrawals.deadlineMs(now);
    if (deadlineMs !== undefined) this.#lookSoon(Math.max(0, deadlineMs - now));
  }

  /** What many nodes say in one turn is looked at once. */
  #lookSoon(inMs: number): void {
    if (!this.#withdrawals.waiting) return;
    const { clock } = this.#parts;
    const atMs = clock.monotonic() + inMs;
    if (this.#look && this.#look.atMs <= atMs) return;
    this.#look?.timer.cancel();
    const timer = clock.after(inMs, () => {
      this.#look = undefined;
      this.#releaseStops();
    });
    this.#look = { timer, atMs };
  }

  /**
   * Tasks go out at once, what all nodes must hear a moment later and together; but nothing before what it stands on: who has
   * applied a revision holds all that the network is at that revision.
   */
  #changed(delta: Delta): void {
    if (this.epoch === undefined) return;
    this.#withdraw(delta);
    if (this.#sessions.size === 0) {
      this.#shared = undefined;
      this.#stale.clear();
      return;
    }
    const { snapshot } = this.#parts.store;
    const dirty = nothingDirty();
    mark(dirty, delta);
    const stale = staleKeys(snapshot, dirty);
    this.#shared?.changed(stale);
    if (this.#stale.size === 0) this.#staleSince = delta.revision;
    for (const key of stale) this.#stale.add(key);
    if (dirty.tasks.size > 0) {
      this.#broadcast();
      for (const node of dirty.tasks.keys()) this.#sessions.get(node)?.sendOwn({ ...dirty, credentials: new Set() });
    }
    for (const change of delta.changes) if (change.table === 'node' && wentDown(change)) this.#hangUp(change.after!.id);
    for (const node of dirty.records) {
      const session = this.#sessions.get(node);
      const record = snapshot.node(node);
      if (record) {
        if (session?.live) session.welcome();
        // It holds a lease again once it has said that it knows what it lost meanwhile.
        if (session?.live && record.fenced) session.sendAll();
      } else {
        this.#sessions.delete(node);
        session?.expel();
        this.liveness.forget(node);
        this.#withdrawals.caughtUp(node);
      }
    }
    if (dirty.cluster) {
      for (const session of this.#sessions.values()) if (session.live) session.welcome();
    }
    if (dirty.credentials.size > 0) {
      for (const session of this.#sessions.values()) session.sendOwn({ ...dirty, tasks: new Map() });
    }
    this.#broadcastSoon();
  }

  /** Its tasks are others' to replace: when it is heard again it is to say first what has become of them. */
  #hangUp(node: NodeId): void {
    const session = this.#sessions.get(node);
    this.#sessions.delete(node);
    session?.close(new Fault('unavailable', 'the node was not heard, and counts as down: it is to say hello again'));
  }

  /** The first change goes out at once, what follows it closely together. */
  #broadcastSoon(): void {
    if (this.#stale.size === 0 || this.#tick) return;
    const { clock } = this.#parts;
    const waitMs = this.#broadcastAtMs + endpointTickMs - clock.monotonic();
    if (waitMs <= 0) {
      this.#broadcast();
      return;
    }
    this.#tick = clock.after(waitMs, () => {
      this.#tick = undefined;
      this.#broadcast();
    });
  }

  #broadcast(): void {
    const epoch = this.epoch;
    if (epoch === undefined || this.#stale.size === 0) return;
    const shared = this.#sharedSet();
    const keys = [...this.#stale];
    this.#stale.clear();
    const put: AssignmentSet['put'] = [];
    const remove: string[] = [];
    for (const key of keys) {
      const item = shared.item(key);
      if (item) put.push(item);
      else remove.push(key);
    }
    const { clock, store } = this.#parts;
    const { revision } = store.snapshot;
    const sentAtMs = clock.now();
    const message: ControlMessage = {
      body: {
        $case: 'assignments',
        value: { epoch, revision, full: false, more: false, put, remove, kept: [], sentAtMs },
      },
    };
    this.#broadcastAtMs = clock.monotonic();
    for (const session of this.#sessions.values()) session.sendShared(message, keys, revision);
  }

  #sharedSet(): SharedSet {
    this.#shared ??= new SharedSet(this.#parts.store.snapshot, this.epoch ?? 0);
    return this.#shared;
  }
}

function wentDown({ before, after }: Extract<Applied, { table: 'node' }>): boolean {
  return before?.state !== 'down' && after?.state === 'down';
}

/** How the agent is, as the beat says; undefined: it was sent by who keeps no watchdog. */
function conditionIn({ condition, session }: Beat): AgentSeen['condition'] | undefined {
  const known = agentConditions.find((one) => one === condition);
  return known === 'running' && session === 0 ? 'unconnected' : known;
}
