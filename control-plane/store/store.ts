/** The cluster's memory: typed records, committed in guarded transactions, seen through a snapshot that one watch feeds. */
import type { Leadership } from '#proto/model/cluster.ts';
import type { Change, Delta } from './records.ts';
import type { Snapshot } from './snapshot.ts';

export interface Store {
  /** Live: it moves forward between turns of the event loop, never within one. */
  readonly snapshot: Snapshot;
  /**
   * Commits all changes in one transaction, or none. With `epoch`, only while that epoch leads.
   * Returns the store revision of the commit; the snapshot has it when `seen(revision)` resolves.
   * Faults: `conflict` (a guard failed), `precondition` (the epoch has passed), `exhausted` (too large, or etcd's quota),
   * `unavailable`, `timeout` (the outcome is unknown: look again).
   */
  commit(changes: readonly Change[], options?: { readonly epoch?: number }): Promise<number>;
  /** Resolves when the snapshot has reached `revision`. */
  seen(revision: number, signal?: AbortSignal): Promise<void>;
  /** Called after each step of the snapshot, in order. The result unsubscribes. */
  subscribe(listener: (delta: Delta) => void): () => void;
  /** Who leads now, as last heard; undefined before the first leader. */
  readonly leadership: Leadership | undefined;
  onLeadership(listener: (leadership: Leadership | undefined) => void): () => void;
  /** Takes the lead: writes `next` if `expected` still stands. The snapshot then has all that was committed before. False when another was first. */
  takeLeadership(expected: Leadership | undefined, next: Leadership): Promise<boolean>;
  /** Asks the store itself, not the snapshot, who leads: a leader that cannot ask must doubt itself. Faults: `unavailable`, `timeout`. */
  readLeadership(): Promise<Leadership | undefined>;
  /**
   * All records at one revision, page by page: `path` is `TABLE/KEY`, `text` the JSON as it lies there, sealed where it is sealed.
   * Faults: `unavailable`, `timeout`, `conflict` where that revision was compacted meanwhile.
   */
  dump(): AsyncIterable<StoredPage>;
  /**
   * The steps after revision `after`, as far back as they are not compacted, up to and with that of `until`, at which something must
   * have been written: for who was not there. Faults: `unavailable`, `timeout`.
   */
  past(after: number, until: number): AsyncIterable<Delta>;
  close(): Promise<void>;
}

export interface StoredPage {
  readonly revision: number;
  readonly records: readonly { readonly path: string; readonly text: string }[];
}
