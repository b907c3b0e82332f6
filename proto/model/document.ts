/** A document: a config or a secret of Compose. Bytes under a name, in versions that never change; a spec names one version. */
import type { Concealed } from './concealed.ts';

export const documentTypes = ['config', 'secret'] as const;
export type DocumentType = (typeof documentTypes)[number];

/** One content of one document. */
export interface DocumentRef {
  readonly type: DocumentType;
  /** Unique in the cluster among those of its type: `PROJECT_KEY`, or what `name:` says. */
  readonly name: string;
  /** Follows from the content, under a key: the same content is the same version, and says nothing of it to who has no key. */
  readonly version: string;
}

/** A file of a task: read-only, in memory. */
export interface DocumentMount extends DocumentRef {
  /** Absolute path in the container. */
  readonly target: string;
  readonly uid: number;
  readonly gid: number;
  readonly mode: number;
}

export interface DocumentVersion {
  readonly version: string;
  readonly bytes: number;
  readonly createdAtMs: number;
}

/** What is known of a document without opening it. */
export interface Document {
  readonly type: DocumentType;
  readonly name: string;
  /** Whose Compose file declares it: it goes with its last use. Empty: made by hand, and nobody's to remove but by hand. */
  readonly project: string;
  readonly labels: Readonly<Record<string, string>>;
  /** What a spec gets that is applied now. */
  readonly version: string;
  /** All that are kept, the current one too: as long as something refers to them. */
  readonly versions: readonly DocumentVersion[];
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
}

/** A version's bytes at rest. */
export interface SealedContent extends DocumentRef {
  readonly sealed: string;
}

/** A version's bytes on their way to a node. */
export interface DocumentContent extends DocumentRef {
  readonly data: Concealed;
}

/** As etcd, and a message with some of them, can take. */
export const largestBytes: Readonly<Record<DocumentType, number>> = { secret: 512 * 1024, config: 1024 * 1024 };

/** `secret/NAME`: no name holds a slash. */
export function documentKey({ type, name }: Pick<DocumentRef, 'type' | 'name'>): string {
  return `${type}/${name}`;
}

/** `secret/NAME/VERSION` */
export function contentKey(ref: DocumentRef): string {
  return `${documentKey(ref)}/${ref.version}`;
}

/** True for what may name a document. */
export function isDocumentName(text: string): boolean {
  return /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/.test(text);
}

/** The contents that are named, each once, by key: what tasks of a template need. */
export function contentsOf({
  documents,
}: {
  readonly documents: readonly DocumentRef[];
}): ReadonlyMap<string, DocumentRef> {
  return new Map(documents.map((ref) => [contentKey(ref), ref]));
}
