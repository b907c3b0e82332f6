/** The store without etcd, for tests and simulation: the same promises, deterministic under an injected clock, and breakable on purpose. */
import type { Clock } from '#proto/kernel/clock.ts';
import { assert, Fault } from '#proto/kernel/errors.ts';
import type { Leadership } from '#proto/model/cluster.ts';
import { Feed, type LeadershipRecord, type RecordEvent } from './feed.ts';
import type { Applied, Change, Delta, Table, Tables, Versioned } from './records.ts';
import type { Snapshot } from './snapshot.ts';
import type { Store, StoredPage } from './store.ts';

interface Step {
  readonly revision: number;
  readonly events: readonly RecordEvent[];
  /** What the events took the place of. */
  readonly before: readonly (RecordEvent['value'] | undefined)[];
  readonly leadership: LeadershipRecord | undefined;
}

export interface MemoryEtcdParts {
  readonly clock: Clock;
  /** From the call to the answer of a commit; 0 unless told: still a later turn. */
  readonly commitMs?: number;
  /** From the commit to its arrival in a snapshot; 0 unless told: still a later turn. */
  readonly deliverMs?: number;
  /** Most records of one commit; 8,191 unless told. */
  readonly maxChanges?: number;
}

/** What stands behind any number of memory stores, as one etcd behind the replicas of a control plane. */
export class MemoryEtcd {
  readonly parts: MemoryEtcdParts;
  commitMs: number;
  deliverMs: number;
  /** What every write is refused with, as by an etcd that is full; undefined: none is. */
  refusal: Fault | undefined;
  revision = 1;
  leadership: LeadershipRecord | undefined;
  readonly #records = new Map<string, RecordEvent>();
  readonly #history: Step[] = [];
  /** Of what happened up to there nothing is remembered. */
  compacted = 0;
  readonly #watchers = new Set<() => void>();

  constructor(parts: MemoryEtcdParts) {
    this.parts = parts;
    this.commitMs = parts.commitMs ?? 0;
    this.deliverMs = parts.deliverMs ?? 0;
  }

  /** A replica's view of it, with all there is now. */
  open(): MemoryStore {
    return new MemoryStore(this);
  }

  /** Forgets the history: who has not kept up must list again. */
  compact(): void {
    this.#history.length = 0;
    this.compacted = this.revision;
  }

  get records(): Iterable<RecordEvent> {
    return this.#records.values();
  }

  /** The record as the store has it, whatever snapshots say. */
  get<T extends Table>(table: T, key: string): Versioned<Tables[T]> | undefined {
    const record = this.#records.get(`${table}/${key}`);
    return record && { value: record.value as Tables[T], modRevision: record.modRevision };
  }

  /** Commits at once or throws the Fault that a store's `commit` rejects with. */
  commit(changes: readonly Change[], epoch: number | undefined): number {
    if (this.refusal) throw this.refusal;
    const { maxChanges = 8_191 } = this.parts;
    if (changes.length > maxChanges)
      throw new Fault('exhausted', `one commit may change ${maxChanges} records, not ${changes.length}`);
    if (epoch !== undefined && this.leadership?.value.epoch !== epoch)
      throw new Fault('precondition', `epoch ${epoch} does not lead`);
    for (const { table, key, expect } of changes)
      if ((this.#records.get(`${table}/${key}`)?.modRevision ?? 0) !== expect)
        throw new Fault('conflict', `${table}/${key} was changed by somebody else`, {
          remedy: 'look again and repeat',
        });
    const modRevision = this.revision + 1;
    const events = changes.map(({ table, key, value }): RecordEvent => ({ table, key, value, modRevision }));
    const before = events.map(({ table, key }) => this.#records.get(`${table}/${key}`)?.value);
    for (const event of events) {
      const path = `${event.table}/${event.key}`;
      if (event.value === undefined) this.#records.delete(path);
      else this.#records.set(path, event);
    }
    return this.#append({ revision: modRevision, events, before, leadership: undefined });
  }

  takeLeadership(expectedRevision: number, next: Leadership): number | undefined {
    if (this.refusal) throw this.refusal;
    if ((this.leadership?.modRevision ?? 0) !== expectedRevision) return undefined;
    this.leadership = { value: next, modRevision: this.revision + 1 };
    return this.#append({ revision: this.revision + 1, events: [], before: [], leadership: this.leadership });
  }

  /** Steps after `revision`; undefined where history does not reach back so far. */
  since(revision: number): readonly Step[] | undefined {
    if (revision < this.compacted) return undefined;
    // Who asks has missed little, as a rule.
    const last = this.#history.findLastIndex((step) => step.revision <= revision);
    return this.#history.slice(last + 1);
  }

  watch(listener: () => void): () => void {
    this.#watchers.add(listener);
    return () => this.#watchers.delete(listener);
  }

  #append(step: Step): number {
    this.revision = step.revision;
    this.#history.push(step);
    for (const listener of [...this.#watchers]) listener();
    return step.revision;
  }
}

/** How the next commit of a memory store goes wrong; `applied`: it went through all the same. */
export interface InjectedFailure {
  readonly fault: Fault;
  readonly applied: boolean;
}

export class MemoryStore implements Store {
  readonly #etcd: MemoryEtcd;
  readonly #feed = new Feed();
  readonly #failures: InjectedFailure[] = [];
  readonly #unwatch: () => void;
  #connected = true;
  #watching = true;
  #delivering = false;
  #closed = false;

  constructor(etcd: MemoryEtcd) {
    this.#etcd = etcd;
    this.#feed.resync(etcd.revision, [...etcd.records], etcd.leadership);
    this.#unwatch = etcd.watch(() => this.#deliverSoon());
  }

  get snapshot(): Snapshot {
    return this.#feed.snapshot;
  }
  get leadership(): Leadership | undefined {
    return this.#feed.leadership?.value;
  }

  /** The next commits fail so, in order. */
  failNext(...failures: InjectedFailure[]): void {
    this.#failures.push(...failures);
  }
  /** Cuts the line to the store, or mends it: the snapshot then catches up. */
  setConnected(connected: boolean): void {
    this.#connected = connected;
    if (connected) this.#deliverSoon();
  }

  /** Holds back what the watch would tell, or lets it catch up; commits go on. */
  setWatching(watching: boolean): void {
    this.#watching = watching;
    if (watching) this.#deliverSoon();
  }

  async commit(changes: readonly Change[], options: { readonly epoch?: number } = {}): Promise<number> {
    if (changes.length === 0) return this.snapshot.revision;
    assert(
      new Set(changes.map(({ table, key }) => `${table}/${key}`)).size === changes.length,
      'a commit changes each record once',
    );
    // As etcd would have it: a copy, without what JSON does not carry.
    const copies = changes.map((change) => ({ ...change, value: change.value && copyOf(change.value) }) as Change);
    await this.#turn();
    const failure = this.#failures.shift();
    if (failure && !failure.applied) throw failure.fault;
    const revision = this.#etcd.commit(copies, options.epoch);
    if (failure) throw failure.fault;
    return revision;
  }

  seen(revision: number, signal?: AbortSignal): Promise<void> {
    return this.#feed.seen(revision, signal);
  }
  subscribe(listener: (delta: Delta) => void): () => void {
    return this.#feed.subscribe(listener);
  }
  onLeadership(listener: (leadership: Leadership | undefined) => void): () => void {
    return this.#feed.onLeadership(listener);
  }

  async takeLeadership(expected: Leadership | undefined, next: Leadership): Promise<boolean> {
    const known = this.#feed.leadership;
    if (known?.value.epoch !== expected?.epoch || known?.value.replica !== expected?.replica) return false;
    await this.#turn();
    const revision = this.#etcd.takeLeadership(known?.modRevision ?? 0, { ...next });
    if (revision === undefined) return false;
    await this.seen(revision);
    return true;
  }

  async readLeadership(): Promise<Leadership | undefined> {
    await this.#turn();
    const record = this.#etcd.leadership;
    if (record) this.#feed.lead(record);
    return record?.value;
  }

  async *dump(): AsyncGenerator<StoredPage> {
    await this.#turn();
    const records = [...this.#etcd.records].map(({ table, key, value }) => ({
      path: `${table}/${key}`,
      text: JSON.stringify(value),
    }));
    yield { revision: this.#etcd.revision, records };
  }

  async *past(after: number, until: number): AsyncGenerator<Delta> {
    await this.#turn();
    for (const { revision, events, before } of this.#etcd.since(Math.max(after, this.#etcd.compacted)) ?? []) {
      if (revision > until) return;
      const changes = events.flatMap(({ table, key, value }, index) => {
        const was = before[index];
        return was || value ? [{ table, key, before: was, after: value } as Applied] : [];
      });
      if (changes.length > 0) yield { revision, changes };
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#unwatch();
    this.#feed.close();
  }

  async #turn(): Promise<void> {
    if (this.#closed) throw new Fault('unavailable', 'the store is closed');
    await this.#etcd.parts.clock.sleep(this.#etcd.commitMs);
    if (!this.#connected) throw new Fault('unavailable', 'etcd is not reachable: the line is cut');
  }

  #deliverSoon(): void {
    if (this.#delivering) return;
    this.#delivering = true;
    this.#etcd.parts.clock.after(this.#etcd.deliverMs, () => {
      this.#delivering = false;
      this.#deliver();
    });
  }

  #deliver(): void {
    if (this.#closed || !this.#connected || !this.#watching) return;
    const steps = this.#etcd.since(this.snapshot.revision);
    if (!steps) this.#feed.resync(this.#etcd.revision, [...this.#etcd.records], this.#etcd.leadership);
    for (const { revision, events, leadership } of steps ?? []) this.#feed.step(revision, events, leadership);
  }
}

/** As JSON would carry it, without the text between. */
function copyOf(value: unknown): unknown {
  if (typeof value !== 'object' || value === null)
    return typeof value === 'number' && !Number.isFinite(value) ? null : value;
  if (Array.isArray(value)) return value.map((one) => copyOf(one) ?? null);
  if (Object.getPrototypeOf(value) !== Object.prototype) return JSON.parse(JSON.stringify(value));
  const copy: Record<string, unknown> = {};
  for (const key in value) {
    const field = copyOf(value[key as keyof typeof value]);
    if (field !== undefined) copy[key] = field;
  }
  return copy;
}
