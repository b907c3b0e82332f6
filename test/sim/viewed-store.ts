/**
 * A store seen through a glass, as Sieve (OSDI'22) perturbs what a controller sees: the view may be stale, miss what happened in between,
 * or end between two writes. It stands before any store, and keeps the promises of one while nobody disturbs it.
 */
import { Feed, type RecordEvent } from '#control-plane/store/feed.ts';
import { type Applied, type Change, type Delta, tables } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Store, StoredPage } from '#control-plane/store/store.ts';
import type { Leadership } from '#proto/model/cluster.ts';

interface Step {
  readonly revision: number;
  readonly events: readonly RecordEvent[];
}

/** Where the holder of the store ends: with a commit still to come, before or after it has landed. */
export interface Doom {
  /** So many commits go well before it. */
  commits: number;
  readonly when: 'before' | 'after';
  readonly end: () => void;
}

export interface ViewedStoreParts {
  readonly inner: Store;
  /** Told of every commit that succeeded. */
  readonly committed?: (changes: readonly Change[], epoch: number | undefined, revision: number) => void;
}

export class ViewedStore implements Store {
  /** Set: its holder does not survive this. */
  doom: Doom | undefined;
  readonly #inner: Store;
  readonly #committed: NonNullable<ViewedStoreParts['committed']>;
  readonly #feed = new Feed();
  readonly #unsubscribe: () => void;
  /** What is not shown yet; undefined: the view is clear. */
  #held: Step[] | undefined;
  #blind = false;

  constructor({ inner, committed = () => {} }: ViewedStoreParts) {
    this.#inner = inner;
    this.#committed = committed;
    this.#lookAgain();
    this.#unsubscribe = inner.subscribe((delta) => this.#hear(delta));
  }

  /** Stale: what happens is shown when `clear` is called, step by step; or with `blind` only what has become of it: each step between was never seen. */
  obscure(blind: boolean): void {
    this.#held ??= [];
    this.#blind ||= blind;
  }
  clear(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    if (this.#blind) this.#lookAgain();
    else for (const { revision, events } of held) this.#feed.step(revision, events);
    this.#blind = false;
  }

  get snapshot(): Snapshot {
    return this.#feed.snapshot;
  }
  get leadership(): Leadership | undefined {
    return this.#inner.leadership;
  }

  async commit(changes: readonly Change[], options?: { readonly epoch?: number }): Promise<number> {
    if (changes.length === 0) return this.snapshot.revision;
    const doom = this.doom && this.doom.commits-- <= 0 ? this.doom : undefined;
    if (doom?.when === 'before') {
      doom.end();
      return new Promise(() => {});
    }
    const revision = await this.#inner.commit(changes, options);
    this.#committed(changes, options?.epoch, revision);
    // Spared meanwhile, it lives.
    if (doom && doom === this.doom) doom.end();
    return revision;
  }

  async seen(revision: number, signal?: AbortSignal): Promise<void> {
    const shown = this.#feed.seen(revision, signal);
    // A step that changed no record is told to nobody.
    void this.#inner.seen(revision, signal).then(
      () => this.#held ?? this.#feed.step(this.#inner.snapshot.revision, []),
      () => {},
    );
    return shown;
  }
  subscribe(listener: (delta: Delta) => void): () => void {
    return this.#feed.subscribe(listener);
  }
  onLeadership(listener: (leadership: Leadership | undefined) => void): () => void {
    return this.#inner.onLeadership(listener);
  }

  async takeLeadership(expected: Leadership | undefined, next: Leadership): Promise<boolean> {
    const taken = await this.#inner.takeLeadership(expected, next);
    if (!taken) return false;
    // Who leads has seen all that was committed before.
    this.clear();
    this.#feed.step(this.#inner.snapshot.revision, []);
    return true;
  }
  readLeadership(): Promise<Leadership | undefined> {
    return this.#inner.readLeadership();
  }
  dump(): AsyncIterable<StoredPage> {
    return this.#inner.dump();
  }
  past(after: number, until: number): AsyncIterable<Delta> {
    return this.#inner.past(after, until);
  }
  async close(): Promise<void> {
    this.#unsubscribe();
    this.#feed.close();
    await this.#inner.close();
  }

  #hear({ revision, since, changes }: Delta): void {
    if (this.#blind) return;
    if (since !== undefined) {
      // It has missed steps itself.
      if (this.#held) this.#blind = true;
      else this.#lookAgain();
      return;
    }
    const events = changes.map((change) => this.#eventOf(change, revision));
    if (this.#held) this.#held.push({ revision, events });
    else this.#feed.step(revision, events);
  }

  #eventOf({ table, key, after }: Applied, revision: number): RecordEvent {
    return { table, key, value: after, modRevision: this.#inner.snapshot.get(table, key)?.modRevision ?? revision };
  }

  #lookAgain(): void {
    const { snapshot } = this.#inner;
    const records: RecordEvent[] = [];
    for (const table of tables)
      for (const key of snapshot.keys(table)) records.push({ table, key, ...snapshot.get(table, key)! });
    this.#feed.resync(snapshot.revision, records);
  }
}
