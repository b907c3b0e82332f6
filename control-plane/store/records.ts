/** What the store keeps and how it changes: the tables, their records, and edits of them. */
import type { AuthorityState } from '#proto/model/authority.ts';
import type { ClusterConfig, Credential, Token } from '#proto/model/cluster.ts';
import type { Document, SealedContent } from '#proto/model/document.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import type { Node } from '#proto/model/node.ts';
import type { Revision, Service, Version } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import type { Trashed } from '#proto/model/trash.ts';
import type { Volume } from '#proto/model/volume.ts';

/**
 * Written by every change that must see all records of some kind as they are (two new networks must not take one number):
 * of two that were decided on the same snapshot, the second is refused by the record's mod revision.
 */
export interface Guard {
  readonly name: string;
  readonly touchedAtMs: number;
  /** What was asked for with it, where that is not everything. */
  readonly of?: string;
}

/**
 * What each table holds. Keys: ids; `SERVICE-ID/NUMBER` for revisions and versions; the name for volumes and networks; the registry for credentials;
 * `config` for the cluster; the name for guards; `TYPE/NAME` for documents, `TYPE/NAME/VERSION` for their contents; `REMOVAL/KIND/NAME` for the trash; `ca` for the authority.
 */
export interface Tables {
  readonly service: Service;
  readonly revision: Revision;
  readonly version: Version;
  readonly task: Task;
  readonly node: Node;
  readonly network: ClusterNetwork;
  readonly volume: Volume;
  readonly token: Token;
  readonly credential: Credential;
  readonly cluster: ClusterConfig;
  readonly guard: Guard;
  readonly document: Document;
  readonly content: SealedContent;
  readonly trash: Trashed;
  readonly authority: AuthorityState;
}
export type Table = keyof Tables;

export const tables: readonly Table[] = [
  'service',
  'revision',
  'version',
  'task',
  'node',
  'network',
  'volume',
  'token',
  'credential',
  'cluster',
  'guard',
  'document',
  'content',
  'trash',
  'authority',
];

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

/** What changed with one step of the snapshot. */
export interface Delta {
  readonly revision: number;
  /** Set where steps were not seen, as after a compaction: this is the difference to what was there at that revision. */
  readonly since?: number;
  readonly changes: readonly Applied[];
}
