/** The cluster's memory: typed records, committed in guarded transactions, seen through a snapshot that one watch feeds. */
import type { ClusterConfig, Credential, Leadership, Token } from '#proto/model/cluster.ts';
import type { Node } from '#proto/model/node.ts';
import type { Revision, Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import type { Volume } from '#proto/model/volume.ts';
import type { Snapshot } from './snapshot.ts';

/**
 * What each table holds. Keys: ids; `SERVICE-ID/NUMBER` for revisions; the name for volumes; the registry for credentials;
 * `config` for the cluster.
 */
export interface Tables {
  readonly service: Service;
  readonly revision: Revision;
  readonly task: Task;
  readonly node: Node;
  readonly volume: Volume;
  readonly token: Token;
  readonly credential: Credential;
  readonly cluster: ClusterConfig;
}
export type Table = keyof Tables;

/** A record and the store revision that last wrote it. */
export interface Versioned<T> {
  readonly value: T;
  readonly modRevision: number;
}

/** One edit of one record. `expect` is the guard: the mod revision that the decision was made on, 0 for "must not exist". */
export type Change = {
  readonly [T in Table]: {
    readonly table: T;
    readonly key: string;
    /** undefined removes the record. */
    readonly value: Tables[T] | undefined;
    readonly expect: number;
  };
}[Table];

/** One edit as the watch tells it. */
export type Applied = {
  readonly [T in Table]: {
    readonly table: T;
    readonly key: string;
    readonly before: Tables[T] | undefined;
    readonly after: Tables[T] | undefined;
  };
}[Table];

/** What changed with one step of the snapshot. `resynced` after a compaction or a reconnect: the difference to what was there before. */
export interface Delta {
  readonly revision: number;
  readonly changes: readonly Applied[];
}

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
  close(): Promise<void>;
}
