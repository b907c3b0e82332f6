/** The agent's tie to the control plane: dials the leader, says what is, is told what should be, and dials again whenever that breaks. */
import type {
  AgentMessage,
  Assignment,
  AssignmentSet,
  ControlMessage,
  NodeNotice,
  OpenRelay,
  UsageBatch,
  Welcome,
} from '#proto/gen/gantry/v1/agent.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { type Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { ServiceId, TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { isTerminal, type TaskStatus } from '#proto/model/task.ts';
import { toWire } from '#proto/model/wire.ts';
import type { MessageStream } from '#proto/stream.ts';
import type { Heartbeat } from './heartbeat.ts';
import type { Connection, Transport } from './transport.ts';

export interface SessionParts {
  readonly clock: Clock;
  readonly log: Log;
  readonly transport: Transport;
  readonly heartbeat: Heartbeat;
  /** HOST:PORT of the control plane's replicas. */
  readonly addresses: readonly string[];
  /** What the agent knows of its machine. */
  readonly describe: () => Node;
  /** Everything in the journal. */
  readonly statuses: () => readonly TaskStatus[];
  /** The newest epoch obeyed, kept over restarts. */
  readonly epoch: { get(): number; set(epoch: number): void };
  readonly welcomed: (welcome: Welcome) => void;
  /** Of no older epoch than any obeyed, in the order sent. */
  readonly assigned: (set: AssignmentSet) => void;
  /** A session has begun: an unfinished full set of the last one is void. Returns digests of what is held of what all nodes are told. */
  readonly began: () => Buffer;
  readonly relay: (request: OpenRelay, connection: Connection) => void;
}

const redialMs = 300;
/** Where this node is no member any more, each wait is twice the last, up to this: a record may only be late, or be restored. */
const expelledRedialMs = 30_000;
/** From the dial to the Welcome. */
const greetingTimeoutMs = 2_000;
/** The same of a replica that has not answered a moment ago, where there are others. */
const muteTimeoutMs = 300;
/** One that is there and slow, as a leader that thousands dial at once, is given twice the time of the last dial, up to this. */
const mostGreetingMs = 16_000;
/** Redirects followed without a pause; replicas may disagree for a moment on who leads. */
const redirectLimit = 3;
/** Progress that nobody waits for may wait this long for company. */
const progressDelayMs = 100;

export class Session {
  readonly #parts: SessionParts;
  #connection: Connection | undefined;
  #stream: MessageStream<ControlMessage, AgentMessage> | undefined;
  #address = '';
  /** Was asked, and did not answer: until then it is given less time, for it may be off while others still name it. */
  #mute = { address: '', untilMs: 0 };
  /** Is there, and did not answer so many dials in a row in time: who gave up each time as soon would be one of many, and none of them served. */
  #slow = { address: '', times: 0 };
  #redirects = 0;
  /** Times in a row that the control plane did not know this node. */
  #expulsions = 0;
  #welcomed = false;
  #full = false;
  #closed = false;
  #dialTimer: Timer | undefined;
  #greetingTimer: Timer | undefined;
  /** The description that the control plane has, as JSON. */
  #described = '';
  readonly #outbox = new Map<TaskId, TaskStatus>();
  #flushTimer: Timer | undefined;
  #flushUrgent = false;
  #lastFailure = '';
  #heeded = '';
  /** Replicas that do not serve us, as who serves us says. */
  #others: readonly string[] = [];

  constructor(parts: SessionParts) {
    this.#parts = parts;
    parts.heartbeat.onSilence(() => {
      if (!this.#welcomed) return;
      parts.log.warn('heartbeats are not acknowledged, dropping the connection', { address: this.#address });
      this.#unanswered(0);
    });
  }

  start(): void {
    this.#dial(this.#parts.addresses[0]!);
  }

  get connected(): boolean {
    return this.#welcomed;
  }
  /** The connection of the running session, for calls beside it. */
  get connection(): Connection | undefined {
    return this.#welcomed ? this.#connection : undefined;
  }

  /** Sends it soon; while there is no session the journal keeps it for the next Hello. */
  report(status: TaskStatus): void {
    if (!this.#stream) return;
    this.#outbox.set(status.taskId, status);
    if (!this.#welcomed) return;
    const urgent = isTerminal(status.state) || status.state === 'running' || status.state === 'ready';
    this.#scheduleFlush(urgent);
  }

  /** The network of this revision is in the kernel. */
  applied(revision: number): void {
    if (this.#welcomed) this.#send({ $case: 'applied', value: { revision } });
  }

  /** Says what the machine is where that has changed since it was last said; while there is no session the next Hello does. */
  described(): void {
    if (!this.#welcomed) return;
    const node = toWire(this.#parts.describe());
    if (JSON.stringify(node) === this.#described) return;
    this.#described = JSON.stringify(node);
    this.#send({ $case: 'described', value: node });
  }

  /** The node's certificate, or what it trusts, is another: what follows uses that; what runs goes on. */
  identityChanged(): void {
    this.described();
    this.#keepWarm(this.#others);
  }

  /** Says what has happened here by itself; false where nobody listens at the moment. */
  notices(notices: NodeNotice[]): boolean {
    if (!this.#welcomed || this.#full) return false;
    this.#send({ $case: 'notices', value: { notices } });
    return true;
  }

  /** What tasks use and who is called; false where nobody listens at the moment: it is old when somebody does. */
  usage(usage: UsageBatch): boolean {
    if (!this.#welcomed || this.#full) return false;
    this.#send({ $case: 'usage', value: usage });
    return true;
  }

  /** Requests wait here for a task of the service; while there is no session they are told of again. */
  wake(service: ServiceId): void {
    if (this.#welcomed) this.#send({ $case: 'wake', value: { serviceIds: [service] } });
  }

  /** Drops the connection and dials again at once: the identity was renewed. */
  redial(): void {
    if (this.#closed) return;
    this.#drop(0);
  }

  close(): void {
    this.#closed = true;
    if (this.#welcomed) this.#flush();
    this.#end();
    this.#dialTimer?.cancel();
    this.#parts.transport.keepWarm([]);
  }

  #dial(address: string): void {
    if (this.#closed) return;
    const { transport, clock } = this.#parts;
    this.#address = address;
    const connection = transport.connect(address, () => {
      if (this.#connection === connection && !this.#welcomed) this.#drop(0, address);
    });
    const stream = connection.session();
    this.#connection = connection;
    this.#stream = stream;
    stream.listen({
      message: (message) => {
        if (this.#stream === stream) this.#take(message);
      },
      drain: () => {
        if (this.#stream !== stream) return;
        this.#full = false;
        if (this.#outbox.size > 0) this.#flush();
      },
      closed: (fault) => {
        if (this.#stream === stream) this.#lost(fault);
      },
    });
    const isMute = this.#parts.addresses.length > 1 && this.#isMute(address);
    const times = this.#slow.address === address ? this.#slow.times : 0;
    const limitMs = Math.min((isMute ? muteTimeoutMs : greetingTimeoutMs) * 2 ** times, mostGreetingMs);
    this.#greetingTimer = clock.after(limitMs, () => {
      if (this.#stream !== stream || this.#welcomed) return;
      if (connection.isThere()) this.#slow = { address, times: times + 1 };
      this.#complain('the control plane does not answer');
      this.#unanswered(redialMs);
    });
    const held = this.#parts.began();
    const node = toWire(this.#parts.describe());
    this.#described = JSON.stringify(node);
    const hello = {
      node,
      epoch: this.#parts.epoch.get(),
      tasks: this.#parts.statuses().map((status) => toWire(status)),
      held,
    };
    this.#send({ $case: 'hello', value: hello });
  }

  #send(body: NonNullable<AgentMessage['body']>): void {
    if (this.#stream && !this.#stream.send({ body })) this.#full = true;
  }

  #take(message: ControlMessage): void {
    const body = message.body;
    switch (body?.$case) {
      case 'welcome':
        this.#welcome(body.value);
        break;
      case 'assignments':
        if ((this.#welcomed || isExpulsion(body.value)) && this.#obeys(body.value.epoch)) this.#assigned(body.value);
        break;
      case 'openRelay':
        if (this.#welcomed && this.#connection) this.#parts.relay(body.value, this.#connection);
        break;
      case 'redirect':
        this.#redirect(body.value.address);
        break;
    }
  }

  /**
   * Instants in it are the leader's: what a task is to wait counts from when we hear of it, however our clocks differ, and is no
   * longer than it was when the task was made, however the clocks of two leaders do.
   */
  #assigned(set: AssignmentSet): void {
    const now = this.#parts.clock.now();
    const put = set.put.map((assignment): Assignment => {
      const { item } = assignment;
      const task = item?.$case === 'task' ? item.value.task : undefined;
      if (item?.$case !== 'task' || !task || task.startAfterMs === 0) return assignment;
      const waitMs = Math.min(task.startAfterMs - set.sentAtMs, task.startAfterMs - task.createdAtMs);
      const later = { ...task, startAfterMs: waitMs <= 0 ? 0 : now + waitMs };
      return { ...assignment, item: { $case: 'task', value: { ...item.value, task: later } } };
    });
    this.#parts.assigned({ ...set, put });
  }

  /** False, and the connection is dropped, where the epoch is older than one already obeyed. */
  #obeys(epoch: number): boolean {
    const newest = this.#parts.epoch.get();
    if (epoch >= newest) {
      if (epoch > newest) this.#parts.epoch.set(epoch);
      return true;
    }
    this.#parts.log.warn('refused the word of a deposed leader', { epoch, address: this.#address });
    this.#drop(redialMs);
    return false;
  }

  #welcome(welcome: Welcome): void {
    if (!this.#obeys(welcome.epoch)) return;
    const first = !this.#welcomed;
    this.#welcomed = true;
    this.#redirects = 0;
    this.#expulsions = 0;
    this.#slow = { address: '', times: 0 };
    this.#lastFailure = '';
    this.#greetingTimer?.cancel();
    this.#parts.welcomed(welcome);
    if (welcome.node?.state === 'ready') this.#heed(welcome.node.message);
    if (!first) return;
    this.#parts.log.info('connected to the control plane', { address: this.#address, epoch: welcome.epoch });
    this.#keepWarm(welcome.replicas.filter((address) => address !== this.#address));
    this.#parts.heartbeat.aim({
      address: this.#address,
      session: welcome.session,
      periodMs: welcome.heartbeatPeriodMs || 200,
    });
    // What happened between the Hello and now.
    if (this.#outbox.size > 0) this.#scheduleFlush(true);
  }

  /** What is wrong with this node in the eyes of the control plane: for who looks at its log, as after joining. */
  #heed(message: string): void {
    if (message !== '' && message !== this.#heeded)
      this.#parts.log.warn('the control plane says of this node', { why: message });
    this.#heeded = message;
  }

  #redirect(address: string): void {
    this.#redirects++;
    if (address === '' || this.#redirects > redirectLimit) {
      this.#redirects = 0;
      this.#drop(redialMs);
      return;
    }
    this.#end('answered');
    this.#dial(address);
  }

  #keepWarm(addresses: readonly string[]): void {
    this.#others = addresses;
    this.#parts.transport.keepWarm(addresses);
    this.#parts.heartbeat.keepWarm(addresses);
  }

  #lost(fault: Fault | undefined): void {
    this.#complain(fault?.remedy ? `${fault.message} (${fault.remedy})` : (fault?.message ?? 'it was ended'));
    if (!isFault(fault, 'not-found')) {
      this.#drop(redialMs);
      return;
    }
    this.#keepWarm([]);
    this.#drop(Math.min(expelledRedialMs, redialMs * 2 ** this.#expulsions++));
  }

  /** Once for each reason, not once for each of three attempts a second. */
  #complain(why: string): void {
    if (why === this.#lastFailure) return;
    this.#lastFailure = why;
    this.#parts.log.warn('no session with the control plane, trying again', { address: this.#address, why });
  }

  /** Whoever has lost its power closes no connection: another replica is asked, and it may not know of that yet. */
  #unanswered(againInMs: number): void {
    if (!this.#isMute(this.#address))
      this.#mute = { address: this.#address, untilMs: this.#parts.clock.monotonic() + greetingTimeoutMs };
    this.#drop(againInMs, this.#next());
  }

  /** A replica that just served us may be back in a moment; one that did not gets its turn later. */
  #drop(againInMs: number, address = this.#welcomed ? this.#address : this.#next()): void {
    this.#end();
    if (this.#closed) return;
    this.#dialTimer?.cancel();
    this.#dialTimer = this.#parts.clock.after(againInMs, () => this.#dial(address));
  }

  #isMute(address: string): boolean {
    return this.#mute.address === address && this.#parts.clock.monotonic() < this.#mute.untilMs;
  }

  #next(): string {
    const { addresses } = this.#parts;
    return addresses[(addresses.indexOf(this.#address) + 1) % addresses.length]!;
  }

  #end(how: 'answered' | 'dropped' = 'dropped'): void {
    this.#greetingTimer?.cancel();
    this.#flushTimer?.cancel();
    this.#flushTimer = undefined;
    this.#outbox.clear();
    this.#full = false;
    this.#stream = undefined;
    if (how === 'answered') this.#connection?.release();
    else this.#connection?.close();
    this.#connection = undefined;
    if (!this.#welcomed) return;
    this.#welcomed = false;
    this.#parts.heartbeat.aim(undefined);
  }

  #scheduleFlush(urgent: boolean): void {
    if (this.#full || (this.#flushTimer && (this.#flushUrgent || !urgent))) return;
    this.#flushTimer?.cancel();
    this.#flushUrgent = urgent;
    this.#flushTimer = this.#parts.clock.after(urgent ? 0 : progressDelayMs, () => this.#flush());
  }

  #flush(): void {
    this.#flushTimer?.cancel();
    this.#flushTimer = undefined;
    const tasks = [...this.#outbox.values()].map((status) => toWire(status));
    this.#outbox.clear();
    if (tasks.length > 0) this.#send({ $case: 'status', value: { tasks } });
  }
}

/** Whoever is not welcomed is told but one thing: that the node is no member any more, and is to hold nothing. */
function isExpulsion({ full, more, put }: AssignmentSet): boolean {
  return full && !more && put.length === 0;
}
