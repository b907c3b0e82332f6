/** A whole cluster in one process on a fake clock: the production controllers and status writer, a memory etcd, and simulated nodes. */
import { createHash } from 'node:crypto';
import { runControllers } from '#control-plane/controllers/loop.ts';
import { itemsOf } from '#control-plane/dispatch/assign.ts';
import { BeatLiveness } from '#control-plane/dispatch/liveness.ts';
import { StatusWriter } from '#control-plane/dispatch/status.ts';
import type { WishContext } from '#control-plane/reconcilers/service-changes.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/store.ts';
import { assert, isFault } from '#proto/kernel/errors.ts';
import { type Log, silentLog } from '#proto/kernel/log.ts';
import { newId, type Random, seededRandom } from '#proto/kernel/random.ts';
import { Scope } from '#proto/kernel/scope.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { isActive, occupiesNode, type Task } from '#proto/model/task.ts';
import { aNode } from '#test/support/builders.ts';
import { FakeClock } from '#test/support/fake-clock.ts';
import { type AgentParts, type Mischief, SimAgent, type WorldAgent } from './agent.ts';
import { checkStep } from './invariants.ts';
import { WorkerAgent } from './worker-agent.ts';

interface Leader {
  readonly epoch: number;
  readonly store: MemoryStore;
  readonly liveness: BeatLiveness;
  readonly statuses: StatusWriter;
  readonly scope: Scope;
}

export class World {
  readonly clock = new FakeClock();
  /** For what the world does to itself; what runs in it has its own. */
  readonly random: Random;
  readonly etcd: MemoryEtcd;
  readonly agents = new Map<NodeId, WorldAgent>();
  readonly mischief: Mischief = { rejected: 0, failsAtStart: 0, diesLater: 0 };
  readonly #seed: number;
  readonly #log: Log;
  readonly #hash = createHash('sha256');
  /** A replica that only looks on. */
  readonly observer: MemoryStore;
  readonly #leaders: Leader[] = [];
  readonly #setAtMs = new Map<NodeId, number>();
  /** When an address was last given up (wall clock), and in which epoch. */
  readonly #freed = new Map<string, { readonly atMs: number; readonly epoch: number }>();
  failure: unknown;

  constructor(seed: number, nodes: number, log: Log = silentLog) {
    this.#seed = seed;
    this.#log = log;
    this.random = seededRandom(seed);
    this.etcd = new MemoryEtcd({ clock: this.clock, commitMs: 1 + this.random.int(4), deliverMs: this.random.int(4) });
    for (let index = 1; index <= nodes; index++) this.#addNode(aNode(`h${index}`, { state: 'unknown', subnet: '' }));
    this.observer = this.etcd.open();
    this.observer.subscribe((delta) => {
      this.#hash.update(`${this.clock.monotonic()} ${JSON.stringify(delta)}\n`);
      try {
        checkStep(this.observer.snapshot, delta);
        for (const change of delta.changes) if (change.table === 'task') this.#checkRest(change.before, change.after);
      } catch (error) {
        this.failure ??= error;
      }
    });
  }

  /** The hash of every step so far: equal for equal seeds. */
  get trace(): string {
    return this.#hash.copy().digest('hex');
  }

  get leader(): Leader {
    return this.#leaders.at(-1)!;
  }

  /** Lets time pass, and throws what was found wrong meanwhile. */
  async pass(ms: number): Promise<void> {
    await this.clock.pass(ms);
    this.#checkLive();
    if (this.failure) throw this.failure;
  }

  /** Another replica takes the lead; the one before is not told: its commits find out. */
  async lead(): Promise<void> {
    const store = this.etcd.open();
    const epoch = (store.leadership?.epoch ?? 0) + 1;
    const taking = store.takeLeadership(store.leadership, { epoch, replica: `m${epoch}`, address: '' });
    await this.clock.pass(20);
    assert(await taking, 'the lead was there to be taken');
    const { clock } = this;
    const random = seededRandom(this.#seed * 7919 + epoch);
    const log = this.#log.with(`m${epoch}`);
    const liveness = new BeatLiveness(clock);
    const scope = new Scope();
    const statuses = new StatusWriter({ store, clock, log, epoch: () => (scope.closing ? undefined : epoch) });
    this.#leaders.push({ epoch, store, liveness, statuses, scope });
    store.subscribe((delta) => {
      if (this.leader.epoch !== epoch) return;
      for (const change of delta.changes) {
        if (change.table !== 'task') continue;
        const node = change.after?.nodeId || change.before?.nodeId;
        if (node) this.#sendSet(node);
      }
    });
    void runControllers({ store, clock, random, log, liveness }, epoch, scope).catch((error: unknown) => {
      this.failure ??= error;
    });
    for (const agent of this.agents.values()) clock.after(this.random.int(500), () => agent.greet());
  }

  /** Commits what the operator wishes, trying again where somebody was first; a wish that cannot be is dropped. */
  wish(decide: (context: WishContext) => Change[], attempt = 0): void {
    const { store } = this.leader;
    const context = { snapshot: store.snapshot, now: this.clock.now(), newId: () => newId(this.random) };
    let changes: Change[];
    try {
      changes = decide(context);
    } catch (error) {
      if (!isFault(error)) throw error;
      return;
    }
    store.commit(changes).catch((error: unknown) => {
      if (!isFault(error)) this.failure ??= error;
      else if (attempt < 10) this.clock.after(10, () => this.wish(decide, attempt + 1));
    });
  }

  /** Why the cluster is not yet as it is wanted; empty when it is. */
  unsettled(): string {
    const { snapshot } = this.observer;
    const nodes = [...snapshot.all('node')];
    const away = nodes.find((node) => node.state !== 'ready');
    if (away) return `${away.name} is ${away.state}`;
    for (const service of snapshot.all('service')) {
      const { spec, revision, rollout, removing } = service;
      if (removing) return `${spec.name} is still being removed`;
      const active = [...snapshot.tasksOfService(service.id)].filter((task) => isActive(task));
      // Start-first needs room for two, a global service on its one node: without it they wait, as they say.
      const full = active.some((task) => task.state === 'pending' && task.message.includes('without room'));
      if (full && (spec.mode === 'global' || spec.update.order === 'start-first')) continue;
      if (rollout.state === 'updating' || rollout.state === 'rolling-back') return `${spec.name} is ${rollout.state}`;
      const wanted = spec.mode === 'global' ? nodes.length : spec.replicas;
      if (active.length !== wanted) return `${spec.name} has ${active.length} of ${wanted} tasks`;
      const slots = new Set(active.map((task) => (spec.mode === 'global' ? task.nodeId : task.slot)));
      if (slots.size !== wanted) return `${spec.name} has two tasks in one seat`;
      const late = active.find((task) => task.state !== 'running');
      if (late) return `${spec.name}.${late.slot} is ${late.state}: ${late.message}`;
      const stale = active.find((task) => task.revision !== revision && rollout.state !== 'paused');
      if (stale) return `${spec.name}.${stale.slot} is of revision ${stale.revision}`;
    }
    for (const agent of this.agents.values()) {
      const stored = [...snapshot.tasksOnNode(agent.id)].filter(occupiesNode).length;
      if (agent.live().length !== stored) return `${agent.id} runs ${agent.live().length} tasks, not ${stored}`;
    }
    return '';
  }

  async close(): Promise<void> {
    for (const { scope, statuses, store } of this.#leaders) {
      await scope.close();
      statuses.close();
      await store.close();
    }
    await this.observer.close();
  }

  #addNode(node: Node): void {
    this.etcd.commit([{ table: 'node', key: node.id, value: node, expect: 0 }], undefined);
    const parts: AgentParts = {
      clock: this.clock,
      random: seededRandom(this.#seed * 104_729 + this.agents.size),
      mischief: this.mischief,
      report: (id, statuses) => this.#leaders.at(-1)?.statuses.report(id, statuses),
      beat: (id) => this.#leaders.at(-1)?.liveness.beat(id),
      connect: (id) => this.#sendSet(id),
    };
    // Half of all worlds run the production worker on every node; the others are faster and stranger.
    const agent = this.#seed % 2 === 0 ? new WorkerAgent(node.id, parts, this.#log) : new SimAgent(node.id, parts);
    this.agents.set(node.id, agent);
  }

  /** In order for each node; what it holds is read when it is sent. */
  #sendSet(node: NodeId): void {
    const agent = this.agents.get(node);
    const leader = this.#leaders.at(-1);
    if (!agent?.reachable || !leader) return;
    const { epoch, store } = leader;
    const record = store.snapshot.node(node)!;
    const items = itemsOf(store.snapshot, node, (credential) => credential);
    const message = { items, node: record, revision: store.snapshot.revision, epoch };
    const nowMs = this.clock.monotonic();
    const atMs = Math.max(this.#setAtMs.get(node) ?? 0, nowMs + agent.delayMs + 1 + this.random.int(10));
    this.#setAtMs.set(node, atMs);
    this.clock.after(atMs - nowMs, () => {
      if (this.leader.epoch === epoch) agent.receive(message);
    });
  }

  /** No two processes of one machine share an address. */
  #checkLive(): void {
    for (const agent of this.agents.values()) {
      const live = agent.live();
      const addresses = new Set(live.map((task) => task.address));
      if (agent.up && addresses.size !== live.length) this.failure ??= new Error(`${agent.id} has an address twice`);
    }
  }

  /** A freed address means nobody for a minute, as far as one leader can know. */
  #checkRest(before: Task | undefined, after: Task | undefined): void {
    const { epoch } = this.leader;
    const now = this.clock.now();
    if (before && occupiesNode(before) && !(after && occupiesNode(after))) {
      this.#freed.set(before.address, { atMs: now, epoch });
    }
    if (!after || !occupiesNode(after) || (before && occupiesNode(before))) return;
    const freed = this.#freed.get(after.address);
    if (freed?.epoch === epoch)
      assert(now - freed.atMs >= 59_000, `${after.address} rested only ${now - freed.atMs} ms`);
  }
}
