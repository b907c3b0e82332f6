/**
 * Which replica leads: one key in the store with an epoch, taken by compare-and-swap.
 *
 *   standby ──(nobody led, or our own earlier run did, or the leader missed for `missMs`)──▶ take epoch + 1 ──▶ leading
 *      ▲                                                                                                          │
 *      └──────────(another epoch is heard of, or the store could not confirm ours for `doubtMs`)───────────────────┘
 *
 * A lease in etcd would take seconds to pass on when etcd's own leader dies too; here only the write is etcd's. Two replicas
 * may believe to lead for a moment, but every commit is guarded by the epoch: one of them writes nothing.
 */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { Scope } from '#proto/kernel/scope.ts';
import type { Leadership } from '#proto/model/cluster.ts';
import type { Store } from './store/store.ts';

export interface LeaderTiming {
  /** Between two looks at the leader, or of the leader at the store. */
  readonly everyMs: number;
  /** Longest wait for one answer of the leader. */
  readonly probeTimeoutMs: number;
  /** So long may a leader be silent. */
  readonly missMs: number;
  /** So long may the store not confirm our leadership. */
  readonly doubtMs: number;
  /** The same for a replica that lost the lead and has not heard its successor yet: two that cannot hear each other must not take turns. */
  readonly lostMissMs: number;
}

export const leaderTiming: LeaderTiming = {
  everyMs: 200,
  probeTimeoutMs: 400,
  missMs: 1_000,
  doubtMs: 3_000,
  lostMissMs: 30_000,
};

export interface LeaderParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  /** This replica; the address is where its agent service listens. */
  readonly self: { readonly replica: string; readonly address: string };
  /** The epoch that the replica at `address` says to lead with; undefined where it does not lead. Rejects with a Fault without an answer. */
  readonly probe: (address: string, signal: AbortSignal) => Promise<number | undefined>;
  /** Where the agent services of all replicas listen. */
  readonly replicas: () => readonly string[];
  /** Another leads, by its own word: the store, which did not confirm our leadership any more, has not told us yet. */
  readonly succeeded: (by: Successor) => void;
  /** Leads until `scope` closes. It must not throw: what fails in here is a bug. */
  readonly onLead: (epoch: number, scope: Scope) => void;
  readonly timing?: Partial<LeaderTiming>;
}

/** Who leads since, as it says itself. */
export type Successor = Pick<Leadership, 'epoch' | 'address'>;

interface Term {
  readonly epoch: number;
  readonly scope: Scope;
  doubt: Timer;
  /** When we asked what the store has answered (boot-time clock, ms). */
  confirmedAt: number;
}

export class Leader {
  readonly #parts: LeaderParts;
  readonly #timing: LeaderTiming;
  readonly #scope = new Scope();
  /** Epochs written, or perhaps written, by this run, or by one before it. */
  readonly #ours = new Set<number>();
  /** Written by a run before this one. */
  #foundEpoch = 0;
  #term: Term | undefined;
  #watched: { readonly epoch: number; heardAt: number } | undefined;
  #lookedAt = 0;
  /** When the store, or the leader, was last known to go on (boot-time clock, ms). */
  #goodAt: number;
  /** Deposed, and no leader heard since. */
  #lost = false;
  #running: Promise<void> | undefined;

  constructor(parts: LeaderParts) {
    this.#parts = parts;
    this.#timing = { ...leaderTiming, ...parts.timing };
    this.#goodAt = parts.clock.boottime();
  }

  /** The epoch this replica leads with; undefined while it does not. */
  get epoch(): number | undefined {
    return this.#term?.epoch;
  }

  /** This run has written that key: it may still name an earlier run of this replica, and nobody leads by it then. */
  wrote(leadership: Leadership): boolean {
    return this.#isOurs(leadership) && leadership.epoch !== this.#foundEpoch;
  }

  /** For how long the store has not confirmed that this replica leads, ms, sleep of the machine included; Infinity: it does not lead. */
  get unconfirmedMs(): number {
    return this.#term ? this.#parts.clock.boottime() - this.#term.confirmedAt : Number.POSITIVE_INFINITY;
  }

  /**
   * The instant (wall clock, ms) up to which this replica knows all that was decided, where it has neither led nor heard a
   * leader for longer than an election takes: others may have decided more since. Undefined: it is up to date.
   */
  get asOfMs(): number | undefined {
    const { clock } = this.#parts;
    const ageMs = clock.boottime() - Math.max(this.#goodAt, this.#term?.confirmedAt ?? 0);
    return ageMs > this.#timing.doubtMs ? clock.now() - ageMs : undefined;
  }

  /** Begins to contend. Resolves after the first look: where nobody led, this replica does by then. */
  async start(): Promise<void> {
    const { store, self, clock } = this.#parts;
    const found = store.leadership;
    // Only what was there when we began can be of an earlier run of ours; later it is a replica that has our name.
    if (found?.replica === self.replica) {
      this.#ours.add(found.epoch);
      this.#foundEpoch = found.epoch;
    }
    this.#scope.defer(store.onLeadership((leadership) => this.#heard(leadership)));
    this.#lookedAt = clock.monotonic();
    await this.#look();
    this.#running = this.#run();
  }

  /** Stops leading and contending. The key stays: a standby takes it once it misses us, or we take it again. */
  async close(): Promise<void> {
    await this.#end('this replica stops');
    await this.#scope.close();
    await this.#running;
  }

  async #run(): Promise<void> {
    const { clock } = this.#parts;
    const { signal } = this.#scope;
    while (!signal.aborted) {
      await clock.sleep(this.#timing.everyMs, signal).catch(() => {});
      if (!signal.aborted) await this.#look();
    }
  }

  async #look(): Promise<void> {
    if (this.#term) await this.#confirm(this.#term);
    else await this.#contend();
    this.#lookedAt = this.#parts.clock.monotonic();
  }

  /** Another replica may have written the epoch that we tried to. */
  #isOurs({ replica, epoch }: Leadership): boolean {
    return replica === this.#parts.self.replica && this.#ours.has(epoch);
  }

  async #contend(): Promise<void> {
    const { store, clock } = this.#parts;
    const leadership = store.leadership;
    if (!leadership || this.#isOurs(leadership)) {
      await this.#take(leadership);
      return;
    }
    const now = clock.monotonic();
    const { everyMs, probeTimeoutMs, missMs, lostMissMs } = this.#timing;
    if (this.#watched?.epoch !== leadership.epoch) this.#watched = { epoch: leadership.epoch, heardAt: now };
    // Who has slept itself cannot say that others were silent.
    else if (now - this.#lookedAt > everyMs + probeTimeoutMs + 300) this.#watched.heardAt = now;
    const watched = this.#watched;
    const askedAt = clock.boottime();
    if (await this.#leads(leadership)) {
      watched.heardAt = clock.monotonic();
      this.#goodAt = askedAt;
      this.#lost = false;
      return;
    }
    const patienceMs = this.#lost ? lostMissMs : missMs;
    if (clock.monotonic() - watched.heardAt >= patienceMs && !this.#scope.closing) await this.#take(leadership);
  }

  /** The leader answers, and still leads with that epoch: a process at its address that has stepped down is no leader. */
  async #leads({ address, epoch }: Leadership): Promise<boolean> {
    return (await this.#epochOf(address)) === epoch;
  }

  /** Undefined also without an answer. */
  async #epochOf(address: string): Promise<number | undefined> {
    const { probe, clock } = this.#parts;
    const controller = new AbortController();
    const timer = clock.after(this.#timing.probeTimeoutMs, () =>
      controller.abort(new Fault('timeout', 'the leader did not answer')),
    );
    const late = new Promise<never>((_, reject) =>
      controller.signal.addEventListener('abort', () => reject(controller.signal.reason), { once: true }),
    );
    late.catch(() => {});
    try {
      return await Promise.race([probe(address, controller.signal), late]);
    } catch (error) {
      if (!isFault(error)) throw error;
      return undefined;
    } finally {
      timer.cancel();
    }
  }

  async #take(expected: Leadership | undefined): Promise<void> {
    const { store, self, log } = this.#parts;
    const epoch = (expected?.epoch ?? 0) + 1;
    // Written down before: an answer that never comes must not leave us standing by for ourselves.
    this.#ours.add(epoch);
    const askedAt = this.#parts.clock.boottime();
    try {
      if (!(await store.takeLeadership(expected, { epoch, ...self }))) {
        this.#ours.delete(epoch);
        return;
      }
    } catch (error) {
      if (!isFault(error)) throw error;
      log.warn('cannot take the lead', { error, epoch });
      return;
    }
    if (this.#scope.closing || store.leadership?.epoch !== epoch) return;
    this.#begin(epoch, expected, askedAt);
  }

  #begin(epoch: number, before: Leadership | undefined, confirmedAt: number): void {
    const { log, self, onLead } = this.#parts;
    const scope = new Scope();
    this.#term = { epoch, scope, confirmedAt, doubt: this.#doubtIn(this.#timing.doubtMs, epoch) };
    log.info('leading', {
      epoch,
      address: self.address,
      why: before ? `after ${before.replica}` : 'nobody led before',
    });
    onLead(epoch, scope);
  }

  /** Asks the store whether we still lead; without its word for `doubtMs` the term ends. */
  async #confirm(term: Term): Promise<void> {
    const { store, clock, log } = this.#parts;
    const sentAt = clock.monotonic();
    const askedAt = clock.boottime();
    const asked = store.readLeadership().then(
      () => {
        // `#heard` has ended the term where the answer names another.
        if (this.#term !== term) return;
        term.doubt.cancel();
        term.confirmedAt = Math.max(term.confirmedAt, askedAt);
        term.doubt = this.#doubtIn(this.#timing.doubtMs - (clock.monotonic() - sentAt), term.epoch);
      },
      (error) => {
        if (!isFault(error)) throw error;
        log.debug('the store did not confirm our leadership', { error, epoch: term.epoch });
      },
    );
    await Promise.race([asked, clock.sleep(this.#timing.missMs, term.scope.signal).catch(() => {})]);
  }

  #doubtIn(ms: number, epoch: number): Timer {
    return this.#parts.clock.after(Math.max(0, ms), () => {
      if (this.#term?.epoch !== epoch) return;
      void this.#end('the store no longer confirms it');
      void this.#seekSuccessor(epoch);
    });
  }

  /** Nodes stay with who led them until somebody else does: while the store is silent, that one is asked for among the others. */
  async #seekSuccessor(after: number): Promise<void> {
    const { store, clock, self, replicas, succeeded, log } = this.#parts;
    const { signal } = this.#scope;
    let newest = after;
    while (!signal.aborted) {
      const others = replicas().filter((address) => address !== self.address);
      const found = await Promise.all(
        others.map(async (address) => ({ address, epoch: await this.#epochOf(address) })),
      );
      if (signal.aborted || store.leadership?.epoch !== after) return;
      for (const { address, epoch = 0 } of found) {
        if (epoch <= newest) continue;
        newest = epoch;
        log.info('another replica leads, as it says itself', { epoch, address });
        succeeded({ address, epoch });
      }
      await clock.sleep(this.#timing.everyMs, signal).catch(() => {});
    }
  }

  #heard(leadership: Leadership | undefined): void {
    if (!this.#term || leadership?.epoch === this.#term.epoch) return;
    this.#lost = true;
    void this.#end(`${leadership?.replica ?? 'nobody'} leads with epoch ${leadership?.epoch ?? 0}`);
  }

  async #end(why: string): Promise<void> {
    const term = this.#term;
    if (!term) return;
    this.#term = undefined;
    this.#goodAt = Math.max(this.#goodAt, term.confirmedAt);
    term.doubt.cancel();
    this.#parts.log.info('no longer leading', { epoch: term.epoch, why });
    await term.scope.close();
  }
}
