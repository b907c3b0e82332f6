/** The only loop: what has changed is looked at, decided purely, committed, and looked at again. */
import { Books } from '#control-plane/reconcilers/books.ts';
import { judgeClocks } from '#control-plane/reconcilers/clocks.ts';
import { decideNodes } from '#control-plane/reconcilers/decide-nodes.ts';
import { type Decision, decideService } from '#control-plane/reconcilers/decide-service.ts';
import { ownerOf } from '#control-plane/reconcilers/shared-network.ts';
import type { Applied, Change, Delta } from '#control-plane/store/records.ts';
import type { Timer } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import { backoffMs } from '#proto/kernel/retry.ts';
import type { Scope } from '#proto/kernel/scope.ts';
import { type NodeId, qualifiedName, type ServiceId } from '#proto/model/ids.ts';
import { isPerNode } from '#proto/model/job.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import { offWords } from '#proto/model/wall-clock.ts';
import { affectedBy, affectedByLease } from './affected.ts';
import { Autoscaler } from './autoscaler.ts';
import { Bystanders } from './bystanders.ts';
import { differs, sameGround, sameHome, samePlace, waitsForSubnet } from './differences.ts';
import { DocumentReaper } from './document-reaper.ts';
import type { Liveness } from './liveness.ts';
import { Namers } from './namers.ts';
import { NetworkReaper } from './network-reaper.ts';
import { Paced } from './paced.ts';
import { Rebalancer } from './rebalancer.ts';
import { TrashReaper, type TrashReaperParts } from './trash-reaper.ts';
import type { Usage } from './usage.ts';
import { Wakes } from './wakes.ts';

export interface ControllerParts extends TrashReaperParts {
  readonly random: Random;
  readonly liveness: Liveness;
  readonly usage: Usage;
  /** Of the machine that this runs on, as its node's agent says it; undefined: it is no node's. */
  readonly bootId?: string;
}

/** Records of one transaction at most; etcd takes so many (`--max-txn-ops`). */
const mostChanges = 2_000;
/** Transactions under way at once; each holds other services. */
const mostCommits = 4;
/** The loop gives way to others after so long. */
const turnMs = 50;
const backoff = { initialMs: 50, maxMs: 10_000 };
const tickMs = 200;
/** A tick this late means that our own event loop stood still. */
const lagMs = 300;

/** Runs every reconciler while `epoch` leads; resolves when the scope closes or the epoch has passed. */
export function runControllers(parts: ControllerParts, epoch: number, scope: Scope): Promise<void> {
  return new Controllers(parts, epoch).run(scope);
}

interface Batch {
  readonly services: Map<ServiceId, Decision>;
  readonly changes: Change[];
  /** How many changes there are when each decision is in: a transaction ends there where it can. */
  readonly ends: number[];
}

class Controllers {
  readonly #parts: ControllerParts;
  readonly #epoch: number;
  readonly #books: Books;
  #dirty = new Set<ServiceId>();
  /** Part of a commit that the snapshot has not shown yet: not to be decided again until it has. */
  readonly #busy = new Set<ServiceId>();
  /** Their commits failed: each goes alone until one succeeds, with the attempts so far and when (monotonic) to try again. */
  readonly #failing = new Map<ServiceId, { readonly attempt: number; readonly againAtMs: number }>();
  /** Those whose tasks have the networks of a service's tasks. */
  readonly #beside = new Namers();
  /** Those whose tasks must be near a service's tasks. */
  readonly #near = new Namers();
  /** They wait for services that they depend on. */
  readonly #held = new Set<ServiceId>();
  readonly #wakes: Wakes<ServiceId>;
  readonly #autoscaler: Autoscaler;
  readonly #leaderSinceMs: number;
  #laggedUntilMs = 0;
  #deaf = false;
  #deafUntilMs = 0;
  #tickAtMs = 0;
  #clockSaid = '';
  #nodesDirty = true;
  #nodesBusy = false;
  #nodesTimer: Timer | undefined;
  /** A thousand nodes that are first heard in one moment are no thousand looks at all of them. */
  readonly #nodesPace: Paced;
  readonly #bystanders: Bystanders;
  #commits = 0;
  #turn = false;
  #stopped = false;
  #stop: () => void = () => {};

  constructor(parts: ControllerParts, epoch: number) {
    this.#parts = parts;
    this.#epoch = epoch;
    this.#leaderSinceMs = parts.clock.monotonic();
    this.#books = new Books(parts.store.snapshot, parts.clock.now());
    this.#nodesPace = new Paced(parts.clock, () => this.#takeTurn());
    this.#bystanders = new Bystanders(parts.clock, () => this.#takeTurn());
    this.#wakes = new Wakes(parts.clock, (id) => this.#mark(id));
    this.#autoscaler = new Autoscaler({
      clock: parts.clock,
      usage: parts.usage,
      snapshot: () => parts.store.snapshot,
      changed: (id) => this.#mark(id),
    });
    for (const service of parts.store.snapshot.all('service')) {
      this.#dirty.add(service.id);
      if (isPerNode(service.spec)) this.#bystanders.everywhere.add(service.id);
      this.#setNamed(undefined, service);
    }
  }

  async run(scope: Scope): Promise<void> {
    if (scope.closing) return;
    const { store, liveness, log } = this.#parts;
    const ended = new Promise<void>((resolve) => {
      this.#stop = resolve;
    });
    scope.signal.addEventListener('abort', () => this.#stop(), { once: true });
    const reapers = [NetworkReaper, DocumentReaper, TrashReaper].map((Reaper) => new Reaper(this.#parts, this.#epoch));
    const rebalancer = new Rebalancer({
      ...this.#parts,
      books: this.#books,
      isShared: (name) => this.#beside.has(name),
      decide: (id) => this.#mark(id),
    });
    const leave = [
      store.subscribe((delta) => {
        this.#onDelta(delta);
        for (const reaper of reapers) reaper.onDelta(delta);
        rebalancer.onDelta(delta);
      }),
      () => {
        for (const reaper of reapers) reaper.stop();
      },
      () => rebalancer.stop(),
      () => this.#autoscaler.stop(),
      liveness.onChange(() => this.#markNodes()),
      this.#tick(),
    ];
    log.info('controllers begin', { epoch: this.#epoch, count: this.#dirty.size });
    this.#takeTurn();
    await ended;
    this.#stopped = true;
    for (const cease of leave) cease();
    this.#nodesTimer?.cancel();
    this.#nodesPace.stop();
    this.#bystanders.stop();
    this.#wakes.clear();
    log.info('controllers end', { epoch: this.#epoch });
  }

  /** Notices when our own event loop stood still: silence of that time says nothing about nodes. */
  #tick(): () => void {
    const { clock } = this.#parts;
    let timer: Timer;
    const arm = () => {
      this.#tickAtMs = clock.monotonic() + tickMs;
      timer = clock.after(tickMs, () => {
        this.#noticeLag();
        arm();
      });
    };
    arm();
    return () => timer.cancel();
  }

  #noticeLag(): void {
    const now = this.#parts.clock.monotonic();
    if (now - this.#tickAtMs > lagMs) this.#laggedUntilMs = now;
  }

  #onDelta(delta: Delta): void {
    this.#books.apply(delta, this.#parts.clock.now());
    for (const change of delta.changes) {
      if (change.table === 'task') this.#onTask(change.before, change.after);
      else if (change.table === 'service') this.#onService(change);
      else if (change.table === 'node') this.#onNode(change.before, change.after);
      else if (change.table === 'volume') {
        if (change.before) this.#bystanders.freed();
      } else if (change.table === 'network') this.#bystanders.freed();
      else if (change.table === 'cluster') {
        this.#nodesDirty = true;
        if (change.before?.orphanAfterMs !== change.after?.orphanAfterMs)
          for (const { id } of this.#parts.store.snapshot.all('service')) this.#dirty.add(id);
      }
    }
    this.#takeTurn();
  }

  #onTask(before: Task | undefined, after: Task | undefined): void {
    const task = (after ?? before)!;
    if (!before || !after || differs(before, after)) {
      this.#dirty.add(task.serviceId);
      const name = qualifiedName(task.project, task.serviceName);
      for (const id of this.#beside.of(name)) this.#dirty.add(id);
      for (const id of this.#near.of(name)) if (this.#bystanders.unplaced.has(id)) this.#dirty.add(id);
    }
    const left = before !== undefined && occupiesNode(before) && !(after && occupiesNode(after));
    this.#markDependents(task.project, task.serviceName);
    if (left) this.#markDependencies(this.#parts.store.snapshot.service(task.serviceId));
    if (left) this.#nodesDirty ||= waitsForSubnet(this.#parts.store.snapshot.node(before.nodeId as NodeId));
    if (left) this.#bystanders.freed();
  }

  /** Those that wait for the service of that name. */
  #markDependents(project: string, name: string): void {
    if (this.#held.size === 0) return;
    for (const { id } of this.#parts.store.snapshot.dependentsOf(project, name))
      if (this.#held.has(id)) this.#dirty.add(id);
  }

  /** Services that may stop, now that tasks of one that depends on them have. */
  #markDependencies(service: Service | undefined): void {
    if (!service?.removing) return;
    const { snapshot } = this.#parts.store;
    for (const { service: name } of service.spec.dependsOn) {
      const dependency = snapshot.serviceNamed(service.spec.project, name);
      if (dependency?.removing) this.#dirty.add(dependency.id);
    }
  }

  #onService({ before, after }: Extract<Applied, { table: 'service' }>): void {
    const { id, spec } = (after ?? before)!;
    this.#setNamed(before, after);
    this.#autoscaler.onService({ before, after });
    this.#markDependents(spec.project, spec.name);
    // Gone, or not to be removed after all.
    if (before?.removing && !after?.removing) this.#markDependencies(before);
    if (after) {
      this.#dirty.add(id);
      if (isPerNode(after.spec)) this.#bystanders.everywhere.add(id);
      return;
    }
    this.#dirty.delete(id);
    this.#bystanders.remove(id);
    this.#failing.delete(id);
    this.#held.delete(id);
    this.#wakes.cancel(id);
  }

  #setNamed(before: Service | undefined, after: Service | undefined): void {
    const { id } = (after ?? before)!;
    this.#beside.set(id, besideOf(before), besideOf(after));
    this.#near.set(id, nearOf(before), nearOf(after));
  }

  #onNode(before: Node | undefined, after: Node | undefined): void {
    const node = (after ?? before)!;
    this.#nodesDirty ||= !before || !after || !sameGround(before, after);
    if (before && after && samePlace(before, after)) return;
    this.#bystanders.freed();
    const { snapshot } = this.#parts.store;
    const staysHome = before && after && sameHome(before, after);
    for (const id of staysHome ? affectedByLease(snapshot, node.id) : affectedBy(snapshot, node.id))
      this.#dirty.add(id);
    if (!staysHome) this.#bystanders.nodeChanged();
  }

  #mark(id: ServiceId): void {
    this.#dirty.add(id);
    this.#takeTurn();
  }

  #markNodes(): void {
    this.#nodesDirty = true;
    this.#takeTurn();
  }

  /** Decides when whoever is telling us something now has finished; many words, one turn. */
  #takeTurn(): void {
    if (this.#turn || this.#stopped) return;
    this.#turn = true;
    queueMicrotask(() => {
      this.#turn = false;
      if (!this.#stopped) this.#decide();
    });
  }

  #decide(): void {
    const { clock, store } = this.#parts;
    if (this.#nodesDirty && !this.#nodesBusy) this.#nodesPace.run(() => this.#decideNodes());
    const priorityOf = (id: ServiceId) => store.snapshot.service(id)?.spec.priority ?? 0;
    this.#dirty = this.#bystanders.mark(this.#dirty, priorityOf);
    const begin = clock.monotonic();
    while (this.#commits < mostCommits) {
      const batch = this.#nextBatch();
      if (batch.changes.length === 0) return;
      void this.#commit(batch);
      if (clock.monotonic() - begin > turnMs) {
        clock.after(0, () => this.#takeTurn());
        return;
      }
    }
  }

  /** Decides services until a transaction is full or nothing is left to look at. */
  #nextBatch(): Batch {
    const batch: Batch = { services: new Map(), changes: [], ends: [] };
    const now = this.#parts.clock.monotonic();
    for (const id of this.#dirty) {
      if (this.#busy.has(id)) continue;
      const failing = this.#failing.get(id);
      if (failing && failing.againAtMs > now) continue;
      if (failing && batch.changes.length > 0) continue;
      this.#dirty.delete(id);
      const decision = this.#bystanders.look(id, () => this.#decideOne(id));
      if (!decision || decision.changes.length === 0) continue;
      this.#busy.add(id);
      batch.services.set(id, decision);
      batch.changes.push(...decision.changes);
      batch.ends.push(batch.changes.length);
      if (failing || batch.changes.length >= mostChanges / 2) break;
    }
    return batch;
  }

  #decideOne(id: ServiceId): Decision | undefined {
    const { store, clock, random, log } = this.#parts;
    const now = clock.now();
    try {
      const context = {
        snapshot: store.snapshot,
        books: this.#books,
        now,
        newId: () => newId(random),
        autoscaled: (service: Service) => this.#autoscaler.wanted(service),
      };
      const decision = decideService(context, id);
      this.#wakes.set(id, decision.wakeAtMs);
      if (decision.more) this.#dirty.add(id);
      if (decision.unplaced > 0) this.#bystanders.unplaced.add(id);
      else this.#bystanders.unplaced.delete(id);
      if (decision.waits) this.#held.add(id);
      else this.#held.delete(id);
      for (const other of decision.evicts) this.#dirty.add(other);
      return decision;
    } catch (error) {
      log.error('a service cannot be decided, others go on', { service: id, error });
      this.#backOff(id);
      return undefined;
    }
  }

  async #commit({ services, changes, ends }: Batch): Promise<void> {
    const { store, clock, log } = this.#parts;
    this.#commits++;
    let done = 0;
    try {
      while (done < changes.length) {
        const most = done + mostChanges;
        const end = ends.findLast((at) => at > done && at <= most) ?? most;
        await store.seen(await store.commit(eachOnce(changes.slice(done, end)), { epoch: this.#epoch }));
        done = end;
      }
      for (const id of services.keys()) this.#failing.delete(id);
    } catch (error) {
      const unsure = !isFault(error, 'conflict', 'precondition', 'exhausted');
      this.#books.revert(store.snapshot, changes.slice(done), clock.now(), unsure);
      if (isFault(error, 'precondition')) {
        log.info('another leader has taken over', { epoch: this.#epoch });
        this.#stop();
      } else {
        const fields = { count: changes.length, error };
        if (isFault(error, 'conflict')) log.debug('somebody was first, looking again', fields);
        else log.warn('a commit failed, trying again', fields);
        for (const id of services.keys()) {
          this.#backOff(id, isFault(error, 'conflict'));
        }
      }
    }
    this.#commits--;
    for (const id of services.keys()) this.#busy.delete(id);
    this.#takeTurn();
  }

  /** Tries this service again later and alone; after a first conflict at once. */
  #backOff(id: ServiceId, soon = false): void {
    const { clock, random } = this.#parts;
    const attempt = (this.#failing.get(id)?.attempt ?? 0) + 1;
    const waitMs = soon && attempt <= 3 ? 0 : backoffMs(backoff, attempt, random);
    this.#failing.set(id, { attempt, againAtMs: clock.monotonic() + waitMs });
    this.#dirty.add(id);
    if (waitMs > 0) clock.after(waitMs, () => this.#takeTurn());
  }

  #decideNodes(): void {
    const { store, clock, liveness, log } = this.#parts;
    const revisionOf = (id: NodeId) => store.snapshot.get('node', id)?.modRevision ?? 0;
    const isWithheld = (id: NodeId) => liveness.withheld(id, revisionOf(id));
    this.#nodesDirty = false;
    this.#noticeLag();
    const now = clock.monotonic();
    if (this.#deaf) this.#deafUntilMs = now;
    const clocks = liveness.clocks();
    const { words, ownMs } = judgeClocks(clocks, store.leadership?.replica ?? '');
    this.#noticeClock(ownMs);
    const hearing = {
      now,
      ownBootId: this.#parts.bootId,
      leaderSinceMs: this.#leaderSinceMs,
      laggedUntilMs: this.#laggedUntilMs,
      deafUntilMs: this.#deafUntilMs,
      lastArrivalMs: liveness.lastArrivalMs,
      lastBeatAt: (node: Node) => liveness.lastBeatAt(node.id),
      hungUpAt: (node: Node) => liveness.hungUpAt(node.id),
      kernelOf: (node: Node) => liveness.kernelOf(node.id),
      clockOf: ({ id }: Node) => (clocks.has(id) ? (words.get(id) ?? '') : undefined),
      wrongClocks: words.keys(),
      agentOf: (node: Node) => liveness.agentOf(node.id),
      appliedRevision: (node: Node) => liveness.appliedRevision(node.id),
      withheld: new Set([...liveness.withheldNodes()].filter(isWithheld)),
    };
    const subnets = this.#books.subnets(store.snapshot, clock.now());
    const { changes, suspects, deaf, wakeAtMs } = decideNodes(store.snapshot, hearing, clock.now(), subnets);
    for (const { id } of suspects) liveness.suspect(id);
    this.#deaf = deaf;
    this.#nodesTimer?.cancel();
    this.#nodesTimer = undefined;
    if (changes.length === 0) {
      this.#wakeNodes(wakeAtMs);
      return;
    }
    for (const change of changes) if (change.table === 'node') this.#logNode(change.value!);
    log.debug('nodes change', { count: changes.length });
    void this.#commitNodes(changes, wakeAtMs);
  }

  /** Said once, until it is otherwise. */
  #noticeClock(ownMs: number): void {
    const why = ownMs === 0 ? '' : `the clock of this host is ${offWords(ownMs)} those of most hosts`;
    if (why !== '' && why !== this.#clockSaid) this.#parts.log.warn('a clock is wrong', { why });
    this.#clockSaid = why;
  }

  #logNode(node: Node): void {
    const before = this.#parts.store.snapshot.node(node.id as NodeId);
    if (before?.state !== node.state) {
      this.#parts.log.info('node state', { node: node.name, state: node.state, why: node.message });
    }
  }

  #wakeNodes(atMs: number): void {
    if (this.#stopped || atMs === Number.POSITIVE_INFINITY) return;
    this.#nodesTimer?.cancel();
    const { clock } = this.#parts;
    this.#nodesTimer = clock.after(Math.max(1, atMs - clock.monotonic()), () => this.#markNodes());
  }

  async #commitNodes(changes: readonly Change[], wakeAtMs: number): Promise<void> {
    const { store, clock, log, liveness } = this.#parts;
    this.#nodesBusy = true;
    // Before it can be known whether it was written: no lease may be granted that outlives it.
    for (const change of changes)
      if (change.table === 'node' && change.value?.fenced) liveness.withhold(change.value.id, change.expect);
    try {
      await store.seen(await store.commit(changes.slice(0, mostChanges), { epoch: this.#epoch }));
      if (changes.length > mostChanges) this.#nodesDirty = true;
      this.#wakeNodes(wakeAtMs);
    } catch (error) {
      if (isFault(error, 'precondition')) this.#stop();
      else {
        if (!isFault(error, 'conflict')) log.warn('node states not committed, trying again', { error });
        clock.after(isFault(error, 'conflict') ? 1 : 100, () => this.#markNodes());
      }
    }
    this.#nodesBusy = false;
    if (!this.#stopped) this.#takeTurn();
  }
}

/** Services that share a new volume each write it down, and singletons of one node its record. */
function eachOnce(changes: readonly Change[]): readonly Change[] {
  return [...new Map(changes.map((change) => [`${change.table}/${change.key}`, change])).values()];
}

/** `project/name` of the service whose tasks' networks its tasks have. */
function besideOf(service: Service | undefined): readonly string[] {
  const owner = service && ownerOf(service.spec);
  return owner === undefined ? [] : [owner];
}

/** `project/name` of services that its tasks must be near to. */
function nearOf(service: Service | undefined): readonly string[] {
  const affinities = service?.spec.placement.affinities ?? [];
  return affinities.filter(({ apart, preferred }) => !apart && !preferred).map(({ service }) => service);
}
