/** All sessions of this replica: whoever leads serves them, whoever follows sends them on. No sockets in here: the simulator runs it as it is. */
import type {
  AgentMessage,
  Beat,
  BeatAck,
  ControlMessage,
  Assignment as WireAssignment,
} from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { NodeId } from '#proto/model/ids.ts';
import { assignmentToWire } from '#proto/model/wire.ts';
import type { MessageStream } from '#proto/stream.ts';
import type { Delta } from '../store/records.ts';
import type { Store } from '../store/store.ts';
import { type Dirty, endpointOf, mark, nothingDirty, peerOf, type Unseal } from './assign.ts';
import { BeatLiveness } from './liveness.ts';
import { RelayDesk } from './relay.ts';
import { NodeSession, notMember } from './session.ts';
import { StatusWriter } from './status.ts';

export interface DispatchParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** This replica, as it calls itself in `Leadership.replica`. */
  readonly replica: string;
  /** Opens the sealed password of a login. */
  readonly unseal: Unseal;
}

/** How often agents beat. */
const heartbeatPeriodMs = 200;
/** Endpoint changes of this long go out together: a burst of starts is a few messages, not one for each. */
const endpointTickMs = 10;

export class Dispatch {
  readonly liveness: BeatLiveness;
  readonly relays: RelayDesk;
  readonly #parts: DispatchParts;
  readonly #writer: StatusWriter;
  readonly #sessions = new Map<NodeId, NodeSession>();
  readonly #unsubscribe: (() => void)[] = [];
  #lastSession = 0;
  #servedEpoch: number | undefined;
  #dirty: Dirty = nothingDirty();
  #tick: { cancel(): void } | undefined;

  constructor(parts: DispatchParts) {
    this.#parts = parts;
    const { store, clock, random } = parts;
    this.liveness = new BeatLiveness(clock);
    this.relays = new RelayDesk({
      clock,
      random,
      ask: (node, request) => this.#sessions.get(node)?.openRelay(request) ?? false,
    });
    const epoch = () => this.epoch;
    this.#writer = new StatusWriter({ store, clock, log: parts.log.with('status'), epoch });
    this.#servedEpoch = this.epoch;
    this.#unsubscribe.push(
      store.subscribe((delta) => this.#changed(delta)),
      store.onLeadership(() => this.#leadershipChanged()),
    );
  }

  /** Of this replica's leadership; undefined while it follows. */
  get epoch(): number | undefined {
    const { leadership } = this.#parts.store;
    return leadership?.replica === this.#parts.replica ? leadership.epoch : undefined;
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
        unseal: this.#parts.unseal,
        heartbeatPeriodMs,
        epoch: () => this.epoch,
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
  beats(node: NodeId, stream: MessageStream<Beat, BeatAck>): void {
    stream.listen({
      message: (beat) => {
        const epoch = this.epoch;
        if (epoch === undefined) {
          stream.close(new Fault('unavailable', 'this replica does not lead'));
          return;
        }
        if (!this.#parts.store.snapshot.node(node)) {
          stream.close(notMember(node));
          return;
        }
        this.liveness.beat(node);
        stream.send({ sequence: beat.sequence, epoch });
      },
      closed: () => this.liveness.hungUp(node),
    });
  }

  close(): void {
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    this.#tick?.cancel();
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
    this.#writer.clear();
    this.#dirty = nothingDirty();
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const session of sessions) session.redirect();
  }

  /** Tasks go out at once, what all nodes must hear a moment later and together. */
  #changed(delta: Delta): void {
    if (this.#sessions.size === 0) return;
    const dirty = this.#dirty;
    mark(dirty, delta);
    if (dirty.tasks.size > 0) {
      for (const node of dirty.tasks.keys()) this.#sessions.get(node)?.sendOwn({ ...dirty, credentials: new Set() });
      dirty.tasks.clear();
    }
    for (const node of dirty.records) {
      const session = this.#sessions.get(node);
      if (this.#parts.store.snapshot.node(node)) {
        if (session?.live) session.welcome();
      } else {
        this.#sessions.delete(node);
        session?.expel();
        this.liveness.forget(node);
      }
    }
    dirty.records.clear();
    if (dirty.credentials.size > 0) {
      for (const session of this.#sessions.values()) session.sendOwn(dirty);
      dirty.credentials.clear();
    }
    if (dirty.endpoints.size + dirty.peers.size === 0 || this.#tick) return;
    this.#tick = this.#parts.clock.after(endpointTickMs, () => {
      this.#tick = undefined;
      this.#broadcast();
    });
  }

  #broadcast(): void {
    const { snapshot } = this.#parts.store;
    const epoch = this.epoch;
    const { endpoints, peers } = this.#dirty;
    this.#dirty = nothingDirty();
    if (epoch === undefined) return;
    const put: WireAssignment[] = [];
    const remove: string[] = [];
    for (const id of endpoints) {
      const service = snapshot.service(id);
      if (service) put.push(assignmentToWire({ kind: 'endpoint', ...endpointOf(snapshot, service) }));
      else remove.push(`endpoint/${id}`);
    }
    for (const id of peers) {
      const node = snapshot.node(id);
      const peer = node && peerOf(node);
      if (peer) put.push(assignmentToWire({ kind: 'peer', ...peer }));
      else remove.push(`peer/${id}`);
    }
    const { revision } = snapshot;
    const sentAtMs = this.#parts.clock.now();
    const message: ControlMessage = {
      body: { $case: 'assignments', value: { epoch, revision, full: false, more: false, put, remove, sentAtMs } },
    };
    for (const session of this.#sessions.values()) session.sendShared(message);
  }
}
