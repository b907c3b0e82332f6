/** What every store does alike: owns the snapshot, tells listeners of each step, and keeps those who wait for a revision. */
import { Fault } from '#proto/kernel/errors.ts';
import type { Leadership } from '#proto/model/cluster.ts';
import { type Applied, type Delta, type Table, type Tables, tables } from './records.ts';
import { LiveSnapshot, type Snapshot } from './snapshot.ts';

/** One record at one revision; no value: it is gone. */
export interface RecordEvent {
  readonly table: Table;
  readonly key: string;
  readonly value: Tables[Table] | undefined;
  readonly modRevision: number;
}

/** Who leads, and the revision that says so: what a guarded transaction compares. */
export interface LeadershipRecord {
  readonly value: Leadership;
  readonly modRevision: number;
}

interface Waiter {
  readonly revision: number;
  readonly resolve: () => void;
  readonly reject: (error: unknown) => void;
}

/** What a list of everything says that the snapshot does not; of the rest it keeps the names alone. */
export class Listing {
  readonly news: RecordEvent[] = [];
  readonly #snapshot: Snapshot;
  readonly #listed = new Map<Table, Set<string>>(tables.map((table) => [table, new Set()]));

  constructor(snapshot: Snapshot) {
    this.#snapshot = snapshot;
  }

  /** The record is there. True: the snapshot has it otherwise, so that it is to be read and added. */
  isNews({ table, key, modRevision }: Pick<RecordEvent, 'table' | 'key' | 'modRevision'>): boolean {
    this.#listed.get(table)!.add(key);
    return this.#snapshot.get(table, key)?.modRevision !== modRevision;
  }

  add(record: RecordEvent): void {
    this.news.push(record);
  }

  /** What the snapshot has, and was not listed. */
  *gone(modRevision: number): Generator<RecordEvent> {
    for (const [table, listed] of this.#listed)
      for (const key of this.#snapshot.keys(table))
        if (!listed.has(key)) yield { table, key, value: undefined, modRevision };
  }
}

export class Feed {
  readonly snapshot = new LiveSnapshot();
  readonly #listeners = new Set<(delta: Delta) => void>();
  readonly #leadershipListeners = new Set<(leadership: Leadership | undefined) => void>();
  #waiters: Waiter[] = [];
  #leadership: LeadershipRecord | undefined;
  #closed: Fault | undefined;

  get leadership(): LeadershipRecord | undefined {
    return this.#leadership;
  }
  /** Somebody waits for a revision that has not come. */
  get awaited(): boolean {
    return this.#waiters.length > 0;
  }

  /** One step to `revision`. Records that are not newer than ours are passed over. */
  step(revision: number, events: readonly RecordEvent[], leadership?: LeadershipRecord): void {
    this.#step(revision, events, leadership, {});
  }

  #step(
    revision: number,
    events: readonly RecordEvent[],
    leadership: LeadershipRecord | undefined,
    seen: Pick<Delta, 'since'>,
  ): void {
    if (revision <= this.snapshot.revision) return;
    const changes: Applied[] = [];
    for (const { table, key, value, modRevision } of events) {
      const applied = this.snapshot.apply(table, key, value, modRevision);
      if (applied) changes.push(applied);
    }
    this.snapshot.revision = revision;
    if (leadership) this.lead(leadership);
    if (changes.length > 0) {
      const delta: Delta = { revision, ...seen, changes };
      for (const listener of [...this.#listeners]) listener(delta);
    }
    this.#wake();
  }

  /** One step to everything there is at `revision`: what differs is told as changes. */
  resync(revision: number, records: readonly RecordEvent[], leadership?: LeadershipRecord): void {
    const listing = this.list();
    for (const record of records) if (listing.isNews(record)) listing.add(record);
    this.relisted(revision, listing, leadership);
  }

  /** The same for who is told of it bit by bit, while the snapshot stays as it is; ends with `relisted`. */
  list(): Listing {
    return new Listing(this.snapshot);
  }

  relisted(revision: number, listing: Listing, leadership?: LeadershipRecord): void {
    this.#step(revision, [...listing.news, ...listing.gone(revision)], leadership, { since: this.snapshot.revision });
  }

  /** Word of a leader; an older epoch than the known one is passed over. */
  lead(record: LeadershipRecord): void {
    if (this.#leadership && record.modRevision <= this.#leadership.modRevision) return;
    this.#leadership = record;
    for (const listener of [...this.#leadershipListeners]) listener(record.value);
  }

  seen(revision: number, signal?: AbortSignal): Promise<void> {
    if (this.snapshot.revision >= revision) return Promise.resolve();
    if (this.#closed) return Promise.reject(this.#closed);
    if (signal?.aborted) return Promise.reject(signal.reason);
    return new Promise((resolve, reject) => {
      const settle = (finish: () => void) => {
        signal?.removeEventListener('abort', onAbort);
        finish();
      };
      const waiter: Waiter = {
        revision,
        resolve: () => settle(resolve),
        reject: (error) => settle(() => reject(error)),
      };
      const onAbort = () => {
        this.#waiters = this.#waiters.filter((other) => other !== waiter);
        reject(signal?.reason);
      };
      signal?.addEventListener('abort', onAbort, { once: true });
      this.#waiters.push(waiter);
    });
  }

  subscribe(listener: (delta: Delta) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
  onLeadership(listener: (leadership: Leadership | undefined) => void): () => void {
    this.#leadershipListeners.add(listener);
    return () => this.#leadershipListeners.delete(listener);
  }

  close(): void {
    this.#closed = new Fault('unavailable', 'the store is closed');
    this.#listeners.clear();
    this.#leadershipListeners.clear();
    for (const waiter of this.#waiters.splice(0)) waiter.reject(this.#closed);
  }

  #wake(): void {
    if (this.#waiters.length === 0) return;
    const ready = this.#waiters.filter(({ revision }) => revision <= this.snapshot.revision);
    this.#waiters = this.#waiters.filter(({ revision }) => revision > this.snapshot.revision);
    for (const waiter of ready) waiter.resolve();
  }
}
