/** The loop of the network room: look, decide, take steps, look again; the newest wish wins, and what others break is put right. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { NetworkRepair, NetworkWanted } from './network.ts';
import { diffLinks, diffPlans, diffTables, type LinksSeen, type NetStep, type TablesSeen } from './plan/diff.ts';
import { type NodePlan, type Planned, planNode, type Surroundings, sameSet, sameWires } from './plan/node-plan.ts';

/** How often is asked whether somebody has interfered; each time costs some ten microseconds. */
const watchEveryMs = 200;
/** How long after a failure everything is read and tried again. */
const retryAfterMs = 1000;

/** The kernel as the loop needs it (net/host/host-kernel.ts). */
export interface Kernel {
  readLinks(plan: NodePlan): LinksSeen;
  readTables(plan: NodePlan): Promise<TablesSeen>;
  take(step: NetStep): Promise<void>;
  /** What the operator would have to change for packets to pass. */
  obstacles(wanted: NetworkWanted): Promise<readonly Fault[]>;
  /** Which of the two somebody else may have changed since they were read. */
  disturbed(plan: NodePlan): { readonly links: boolean; readonly table: boolean };
}

interface Waiter {
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

export class Reconciler {
  readonly #parts: { readonly clock: Clock; readonly log: Log; readonly kernel: Kernel };
  /** The node as it is now; equal parts are the same objects. */
  readonly #around: (wanted: NetworkWanted) => Surroundings;
  /** Runs after the kernel holds a plan: DNS, connections. */
  readonly #settled: (planned: Planned, before: Planned | undefined) => Promise<void>;
  readonly #listeners = new Set<(repair: NetworkRepair) => void>();
  #wanted: NetworkWanted | undefined;
  /** What the kernel holds as far as `#stale` does not doubt it. */
  #planned: Planned | undefined;
  /** The last plan that was settled completely. */
  #done: Planned | undefined;
  #stale = { links: true, table: true };
  #waiters: Waiter[] = [];
  #running: Promise<void> | undefined;
  #watch: Timer | undefined;
  #retryAt = 0;
  #failure = '';
  /** What foreign was in the way when last looked. */
  #obstacles: readonly string[] = [];
  /** Which peers there was no way to. */
  #missing: readonly string[] = [];
  #closed = false;

  constructor(
    parts: { readonly clock: Clock; readonly log: Log; readonly kernel: Kernel },
    around: (wanted: NetworkWanted) => Surroundings,
    settled: (planned: Planned, before: Planned | undefined) => Promise<void>,
  ) {
    this.#parts = parts;
    this.#around = around;
    this.#settled = settled;
  }

  /** What is wanted now, whether or not the kernel holds it yet. */
  get wanted(): NetworkWanted | undefined {
    return this.#wanted;
  }

  /** The newest plan, as far as the kernel holds it. */
  get planned(): Planned | undefined {
    return this.#planned;
  }

  /** Resolves when the kernel holds `wanted` or something newer; rejects with the first Fault among the steps, the others having been taken. */
  apply(wanted: NetworkWanted): Promise<void> {
    if (this.#closed) return Promise.reject(new Fault('cancelled', 'the network is closed'));
    this.#wanted = wanted;
    return new Promise((resolve, reject) => {
      this.#waiters.push({ resolve, reject });
      this.#run();
    });
  }

  /** Resolves when everything has been read again and put right; for those who found something missing. */
  recheck(): Promise<void> {
    this.#stale = { links: true, table: true };
    if (!this.#wanted) return Promise.resolve();
    return this.apply(this.#wanted);
  }

  onRepair(listener: (repair: NetworkRepair) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watch?.cancel();
    await this.#running;
  }

  #run(): void {
    this.#running ??= this.#passes().finally(() => {
      this.#running = undefined;
      if (this.#waiters.length > 0) this.#run();
    });
  }

  async #passes(): Promise<void> {
    // A change costs its caller one turn of the event loop: what arrives in the same turn is applied together.
    await Promise.resolve();
    while (this.#waiters.length > 0) {
      const waiters = this.#waiters;
      this.#waiters = [];
      const fault = await this.#pass();
      for (const waiter of waiters) fault === undefined ? waiter.resolve() : waiter.reject(fault);
    }
    this.#watchLater();
  }

  /** One look, decision and its steps; gives the first failure. */
  async #pass(): Promise<unknown> {
    const wanted = this.#wanted;
    if (!wanted) return undefined;
    const before = this.#planned;
    const stale = this.#stale;
    // What goes wrong below leaves doubt; what others do from here on is noticed after the reading.
    this.#stale = { links: false, table: false };
    try {
      const around = this.#around(wanted);
      const planned =
        before?.input === wanted && sameAround(before.around, around) ? before : planNode(wanted, around, before);
      const { plan } = planned;
      const read = stale.table || !before ? await this.#parts.kernel.readTables(plan) : undefined;
      const tables = read ? diffTables(plan, read) : diffPlans(plan, (before as Planned).plan);
      const seen = stale.links || !before ? this.#parts.kernel.readLinks(plan) : undefined;
      const links = diffLinks(plan, seen ?? (before as Planned).plan);
      // What was there as last settled, and is not as it was any more, whatever else is wanted by now.
      const damage = this.#done && {
        links: seen ? diffLinks(this.#done.plan, seen) : [],
        table: read ? diffTables(this.#done.plan, read) : [],
      };
      const { fault, taken } = await this.#takeAll([...links, ...tables]);
      this.#sayRepaired(taken, damage);
      this.#planned = planned;
      if (stale.table || !before) await this.#lookForObstacles(wanted);
      if (planned.ways !== before?.ways) this.#sayWhoIsMissing(planned);
      if (fault === undefined) {
        await this.#settled(planned, this.#done);
        this.#done = planned;
        this.#failure = '';
        return undefined;
      }
      return this.#failed(fault);
    } catch (error) {
      return this.#failed(error);
    }
  }

  /** Says once which peers there is no way to, and why: all others are reached, so it is no failure. */
  #sayWhoIsMissing({ ways }: Planned): void {
    for (const error of ways.missing) {
      if (this.#missing.includes(error.message)) continue;
      this.#parts.log.warn('a peer is not reached', { error });
    }
    this.#missing = ways.missing.map(({ message }) => message);
  }

  /** Says once what foreign stands in the way: it is the operator's to change, and no reason to fail. */
  async #lookForObstacles(wanted: NetworkWanted): Promise<void> {
    const obstacles = await this.#parts.kernel.obstacles(wanted);
    for (const error of obstacles) {
      if (this.#obstacles.includes(error.message)) continue;
      this.#parts.log.warn('the host is in the way of the network', { error });
    }
    this.#obstacles = obstacles.map((obstacle) => obstacle.message);
  }

  /** Takes every step; those that were taken, and the first failure. */
  async #takeAll(steps: readonly NetStep[]): Promise<{ readonly taken: readonly NetStep[]; readonly fault: unknown }> {
    let fault: unknown;
    const taken: NetStep[] = [];
    for (const step of steps) {
      try {
        await this.#parts.kernel.take(step);
        taken.push(step);
      } catch (error) {
        fault ??= error;
      }
    }
    return { taken, fault };
  }

  /** Tells of what was damaged and has been put right; not of what nobody wants any more. */
  #sayRepaired(
    taken: readonly NetStep[],
    damage: { readonly [part in 'links' | 'table']: NetStep[] } | undefined,
  ): void {
    if (!damage) return;
    const whys = new Set(taken.map((step) => step.why));
    const table = taken.some((step) => step.kind.startsWith('table-')) ? damage.table : [];
    for (const { kind, why } of [...damage.links.filter((step) => whys.has(step.why)), ...table]) {
      // A link outlives its task for a moment, as a rule: nobody's damage.
      if (kind === 'port-remove') continue;
      this.#parts.log.warn('network repaired', { step: kind, why });
      for (const listener of this.#listeners) listener({ message: why, kind });
    }
  }

  #failed(error: unknown): unknown {
    if (!isFault(error)) this.#parts.log.error('bug in the network', { error });
    this.#stale = { links: true, table: true };
    this.#retryAt = this.#parts.clock.monotonic() + retryAfterMs;
    const text = describe(error);
    if (text !== this.#failure) this.#parts.log.warn('network could not be set up', { error });
    this.#failure = text;
    return error;
  }

  #watchLater(): void {
    if (this.#closed) return;
    this.#watch?.cancel();
    this.#watch = this.#parts.clock.after(watchEveryMs, () => {
      if (this.#running || this.#closed) return;
      if (this.#mustLook()) {
        this.#waiters.push({ resolve() {}, reject() {} });
        this.#run();
      } else this.#watchLater();
    });
  }

  #mustLook(): boolean {
    if (!this.#planned) return this.#wanted !== undefined && this.#parts.clock.monotonic() >= this.#retryAt;
    const { input, around, plan } = this.#planned;
    let news = false;
    try {
      const { links, table } = this.#parts.kernel.disturbed(plan);
      this.#stale = { links: this.#stale.links || links, table: this.#stale.table || table };
      news = !sameWires(this.#around(input as NetworkWanted), around);
    } catch (error) {
      this.#failed(error);
    }
    if (this.#failure !== '' && this.#parts.clock.monotonic() < this.#retryAt) return false;
    return news || this.#stale.links || this.#stale.table;
  }
}

function sameAround(a: Surroundings, b: Surroundings): boolean {
  return sameWires(a, b) && sameSet(a.ports, b.ports);
}
