/** A whole cluster in one process on a fake clock: production replicas and agents, over a memory etcd, a simulated line, and fake machines. */
import { guardNetworks } from '#control-plane/reconcilers/network-changes.ts';
import type { WishContext } from '#control-plane/reconcilers/service-changes.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Applied, Change, Delta } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ContainerStats } from '#node-agent/runtime/runtime.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { newId, type Random, seededRandom } from '#proto/kernel/random.ts';
import type { Leadership } from '#proto/model/cluster.ts';
import { nodeId, type TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { aNode } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';
import { type FakeRegistry, fakeRegistry } from '#test/support/fake-images.ts';
import { SimEvents } from './events.ts';
import { Host, type Mischief } from './host.ts';
import { type Invariant, invariants } from './invariants.ts';
import type { VolumeOnDisk } from './mounts.ts';
import { SimNetwork } from './network.ts';
import { Replica } from './replica.ts';
import { Trace } from './trace.ts';

export interface WorldSize {
  readonly hosts: number;
  readonly replicas: number;
  /** Hosts have watchdogs, and kernels that answer probes; else agents beat themselves, and silence is all there is. */
  readonly watched?: boolean;
  /** Beside those that always hold. */
  readonly invariants?: readonly Invariant[];
}

/** Hosts are looked at so often while something happens, and for a while after it; every second where nothing does. */
const lookEveryMs = 50;
const busyMs = 2_000;
const lookAtRestMs = 1_000;

const hooks = ['step', 'committed', 'started', 'mounted', 'signalled', 'look', 'calm'] as const;
type Hook = (typeof hooks)[number];

export class World {
  readonly clock = new FakeClock();
  readonly watched: boolean;
  /** For what happens to the world; what runs in it has its own. */
  random: Random;
  readonly trace: Trace;
  readonly etcd: MemoryEtcd;
  readonly network: SimNetwork;
  readonly registry: FakeRegistry = fakeRegistry();
  readonly events = new SimEvents(this.clock);
  readonly replicas: Replica[] = [];
  readonly hosts: Host[] = [];
  readonly mischief: Mischief = { refused: 0, failsAtStart: 0, diesLater: 0, stubborn: 0, unhealthy: 0 };
  /** What a task's container says of itself when it is asked. */
  readonly usageOf = (task: TaskId): Partial<ContainerStats> => {
    return { cpuSeconds: (this.cpuSeconds.get(task) ?? 0) + this.#loadedSeconds() };
  };
  /** Tasks whose health checks fail. */
  readonly ill = new Set<TaskId>();
  /** What tasks have used so far. */
  readonly cpuSeconds = new Map<TaskId, number>();
  /** What each task does since `atMs`, in percent of one core, and what it had done by then. */
  #load = { percent: 0, atMs: 0, seconds: 0 };
  /** Called to end a fault that is still on. */
  readonly #mends = new Set<() => void>();
  readonly #leaders: { readonly revision: number; readonly leadership: Leadership }[] = [];
  /** Those that have something to say there. */
  readonly #invariants: ReadonlyMap<Hook, readonly Invariant[]>;
  /** A replica that only looks on. */
  readonly #observer: MemoryStore;
  readonly #ids: Random;
  #failure: unknown;
  #closed = false;
  /** Numbers the moments in which invariants are asked. Nothing happens within one: what one of them has found out holds for the others. */
  moment: number | undefined;
  #moments = 0;
  #leaderThen: { readonly moment: number; readonly replica: Replica | undefined } | undefined;

  constructor(
    seed: number,
    { hosts, replicas, watched = false, invariants: more = [] }: WorldSize,
    print?: (line: string) => void,
  ) {
    this.watched = watched;
    const all = [...invariants(), ...more];
    this.#invariants = new Map(hooks.map((hook) => [hook, all.filter((invariant) => invariant[hook])]));
    this.random = seededRandom(seed);
    this.#ids = seededRandom(seed * 31 + 7);
    this.trace = new Trace(() => this.clock.monotonic(), print);
    this.network = new SimNetwork(this.clock, seededRandom(seed * 7_919 + 3));
    this.etcd = new MemoryEtcd({ clock: this.clock, commitMs: 1 + this.random.int(4), deliverMs: this.random.int(4) });
    this.#observer = this.etcd.open();
    this.etcd.watch(() => this.#noteLeader());
    this.#observer.subscribe((delta) => this.#step(delta));
    for (let index = 1; index <= replicas; index++) {
      this.replicas.push(new Replica(this, `m${index}`, seed * 104_729 + 1_000 + index));
    }
    for (let index = 1; index <= hosts; index++) {
      const node = this.member(`h${index}`);
      this.hosts.push(new Host(this, node, seed * 104_729 + index));
    }
    this.#lookAgain();
  }

  /** The cluster as the store has it. */
  get truth(): Snapshot {
    return this.#observer.snapshot;
  }
  get epoch(): number {
    return this.etcd.leadership?.value.epoch ?? 0;
  }
  /** Whoever leads and knows it. */
  get leader(): Replica | undefined {
    const { moment } = this;
    if (moment !== undefined && this.#leaderThen?.moment === moment) return this.#leaderThen.replica;
    const newest = this.epoch;
    const replica = this.replicas.find(({ epoch }) => epoch !== undefined && epoch === newest);
    if (moment !== undefined) this.#leaderThen = { moment, replica };
    return replica;
  }
  /** Where agents find replicas. */
  get addresses(): string[] {
    return this.replicas.map(({ address }) => address);
  }

  start(): void {
    for (const replica of this.replicas) replica.start();
    for (const host of this.hosts) host.powerOn();
  }

  /** Writes down a new member, as joining with a token would. */
  member(name: string): Node {
    const id = nodeId(newId(this.#ids));
    // Who enrols has not described itself yet; in the first plot it has by the time it is a member.
    const node = aNode(name, { id, state: 'unknown', subnet: '', ...(this.watched && { bootId: '' }) });
    const { refusal } = this.etcd;
    // Who joins asks again until etcd takes it.
    this.etcd.refusal = undefined;
    this.etcd.commit([{ table: 'node', key: id, value: node, expect: 0 }], undefined);
    this.etcd.refusal = refusal;
    return node;
  }

  /** Lets time pass, and throws what was found wrong meanwhile. */
  async pass(ms: number): Promise<void> {
    await this.clock.pass(ms);
    if (this.#failure) throw this.#failure;
  }

  /** Each task keeps so many percent of a core busy from now on. */
  load(percent: number): void {
    this.trace.note(`each task uses ${percent} % of a core`);
    this.#load = { percent, atMs: this.clock.monotonic(), seconds: this.#loadedSeconds() };
  }
  #loadedSeconds(): number {
    const { percent, atMs, seconds } = this.#load;
    return seconds + (percent / 100) * ((this.clock.monotonic() - atMs) / 1_000);
  }

  /** A fault that lasts for `ms`, or until `mend`. */
  during(ms: number, end: () => void): void {
    const once = () => {
      if (this.#mends.delete(once)) end();
    };
    this.#mends.add(once);
    this.clock.after(ms, once);
  }
  /** Ends every fault that is on. */
  mend(): void {
    for (const end of [...this.#mends]) end();
  }

  /** The host has a session with the leader of the newest epoch, and nothing is on the line between them. */
  readonly tied = (host: Host): boolean => {
    const { leader } = this;
    if (!leader?.run?.process.running || !host.connected || host.journal?.epoch !== leader.epoch) return false;
    return !this.network.isCut(host.name, leader.name) && !this.network.isCut(leader.name, host.name);
  };

  /** Commits what the operator wishes through the leader, trying again where somebody was first; a wish that cannot be is dropped. */
  wish(name: string, decide: (context: WishContext) => Change[], attempt = 0): void {
    const store = this.leader?.run?.store;
    const again = () => {
      if (attempt < 10) this.clock.after(20 + attempt * 20, () => this.wish(name, decide, attempt + 1));
    };
    if (!store) {
      again();
      return;
    }
    const context = { snapshot: store.snapshot, now: this.clock.now(), newId: () => newId(this.#ids) };
    let changes: Change[];
    try {
      changes = namesGuarded(context, decide(context));
    } catch (error) {
      if (!isFault(error)) throw error;
      this.trace.note(`operator: ${name}: ${error.message}`);
      return;
    }
    this.trace.note(`operator: ${name}`);
    store.commit(changes).catch((error: unknown) => {
      if (!isFault(error)) this.fail(error);
      else again();
    });
  }

  /** Who led when this revision was written. */
  leaderAt(revision: number): Leadership | undefined {
    return this.#leaders.findLast((entry) => entry.revision < revision)?.leadership;
  }

  committed(replica: string, epoch: number | undefined, changes: readonly Change[], revision: number): void {
    this.#check('committed', (invariant) => invariant.committed?.({ replica, epoch, changes, revision }, this));
  }
  started(host: Host, task: TaskId): void {
    this.trace.note(`${host.name} runs ${task}`);
    this.#check('started', (invariant) => invariant.started?.(host, task, this));
  }
  mounted(host: Host, task: TaskId, volume: VolumeOnDisk, found: boolean): void {
    this.trace.note(`${host.name} mounts ${volume.name} for ${task}${found ? '' : ', empty'}`);
    this.#check('mounted', (invariant) => invariant.mounted?.(host, task, volume, found, this));
  }
  signalled(host: Host, task: TaskId): void {
    this.#check('signalled', (invariant) => invariant.signalled?.(host, task, this));
  }
  /** Called while nothing goes wrong. */
  calm(): void {
    this.#check('calm', (invariant) => invariant.calm?.(this));
  }
  fail(error: unknown): void {
    if (this.#closed) return;
    this.#failure ??= error;
    this.trace.freeze();
  }

  async close(): Promise<void> {
    this.#closed = true;
    for (const host of this.hosts) host.powerOff();
    for (const replica of this.replicas) replica.crash();
    await this.#observer.close();
  }

  #noteLeader(): void {
    const { leadership } = this.etcd;
    if (!leadership || leadership.modRevision === this.#leaders.at(-1)?.revision) return;
    this.#leaders.push({ revision: leadership.modRevision, leadership: leadership.value });
  }

  #step(delta: Delta): void {
    this.events.step(delta);
    for (const change of delta.changes) {
      const shown = change.after ? wordsOf(change) : 'deleted';
      this.trace.note(`store: ${change.table}/${change.key} ${shown} @${delta.revision}`, JSON.stringify(change.after));
    }
    this.#check('step', (invariant) => invariant.step?.(delta, this));
  }

  #lookAgain(): void {
    if (this.#closed) return;
    const isBusy = this.clock.monotonic() - this.trace.notedAtMs < busyMs;
    this.clock.after(isBusy ? lookEveryMs : lookAtRestMs, () => {
      this.#check('look', (invariant) => invariant.look?.(this));
      this.#lookAgain();
    });
  }

  #check(hook: Hook, ask: (invariant: Invariant) => void): void {
    // One may be asked because of what another does.
    const { moment } = this;
    this.moment = ++this.#moments;
    for (const invariant of this.#invariants.get(hook)!) {
      try {
        ask(invariant);
      } catch (error) {
        this.fail(new Error(`${invariant.name}: ${error instanceof Error ? error.message : error}`, { cause: error }));
      }
    }
    this.moment = moment;
  }
}

/** What people want to see of a record. */
function wordsOf(change: Applied): string {
  switch (change.table) {
    case 'service': {
      const { spec, revision, rollout, removing } = change.after!;
      const { state, message } = rollout;
      return `${spec.name} x${spec.replicas} revision ${revision} ${state}${message && `: ${message}`}${removing ? ' removing' : ''}`;
    }
    case 'task': {
      const { serviceName, slot, revision, nodeName, wanted, state, health } = change.after!;
      return `${serviceName}.${slot}/${revision} on ${nodeName} wanted ${wanted}: ${state} ${health}`;
    }
    case 'node': {
      const { name, state, availability, subnet, message, fenced } = change.after!;
      return `${name} ${state} ${availability} ${subnet} ${message}${fenced ? ' fenced' : ''}`;
    }
    case 'volume': {
      const { name, nodeName, createdAtMs } = change.after!;
      return `${name} of ${createdAtMs} on ${nodeName}`;
    }
    default:
      return '';
  }
}

/** A new service joins networks, as in the API's apply: of two of one name that are decided on the same snapshot only one is committed. */
function namesGuarded(context: WishContext, changes: Change[]): Change[] {
  const isNew = changes.some(({ table, expect, value }) => table === 'service' && expect === 0 && value !== undefined);
  const isGuarded = changes.some(({ table }) => table === 'guard');
  return isNew && !isGuarded ? [...changes, guardNetworks(context)] : changes;
}
