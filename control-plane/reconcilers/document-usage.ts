/** Who refers to which content of which config or secret: what is kept, and what keeps a document from being removed. */
import type { Applied, Delta, Table, Tables } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { contentKey, contentsOf, type DocumentRef, documentKey } from '#proto/model/document.ts';
import type { Service, TaskTemplate } from '#proto/model/service.ts';
import { usersBy } from './users.ts';

/** Tables whose records refer to contents. */
const tables = ['service', 'revision', 'version', 'trash'] as const satisfies readonly Table[];
type Referring = (typeof tables)[number];

/** What names contents: a template, or a document in the trash. */
type Referrer = Parameters<typeof contentsOf>[0];

function referrersOf<T extends Referring>(table: T, value: Tables[T] | undefined): readonly Referrer[] {
  if (!value) return [];
  if (table === 'revision') return [(value as Tables['revision']).template];
  if (table === 'version') return [(value as Tables['version']).spec.template];
  if (table === 'service') return ofSpecs(value as Service);
  const { item } = value as Tables['trash'];
  if (item.kind === 'service') return ofSpecs(item);
  if (item.kind !== 'document') return [];
  const { type, name, versions } = item.document;
  return [{ documents: versions.map(({ version }) => ({ type, name, version })) }];
}

function ofSpecs({ spec, previous }: Pick<Service, 'spec' | 'previous'>): readonly TaskTemplate[] {
  return previous ? [spec.template, previous.template] : [spec.template];
}

/** Counts references as records come and go, so that what nobody refers to any more is found without looking at everybody. */
export class DocumentUse {
  readonly #contents = new Map<string, number>();
  readonly #documents = new Map<string, number>();

  static of(snapshot: Snapshot): DocumentUse {
    const use = new DocumentUse();
    for (const table of tables)
      for (const value of snapshot.all(table))
        for (const referrer of referrersOf(table, value)) use.#count(referrer, 1);
    return use;
  }

  /** Keys of documents of which something may be referred to no longer. */
  apply({ changes }: Delta): readonly string[] {
    const left = new Set<string>();
    for (const change of changes) {
      if (change.table === 'document') left.add(change.key);
      if (!isReferring(change)) continue;
      const { table, before, after } = change;
      const [had, has] = [referrersOf(table, before), referrersOf(table, after)];
      for (const referrer of has) if (!had.includes(referrer)) this.#count(referrer, 1);
      for (const referrer of had) if (!has.includes(referrer)) this.#count(referrer, -1, left);
    }
    return [...left];
  }

  refersTo(ref: DocumentRef): boolean {
    return this.#contents.has(contentKey(ref));
  }
  refersToAny(key: string): boolean {
    return this.#documents.has(key);
  }

  #count(referrer: Referrer, by: 1 | -1, left?: Set<string>): void {
    if (referrer.documents.length === 0) return;
    for (const [key, ref] of contentsOf(referrer)) {
      const document = documentKey(ref);
      tally(this.#documents, document, by);
      if (tally(this.#contents, key, by) === 0) left?.add(document);
    }
  }
}

function isReferring(change: Applied): change is Extract<Applied, { table: Referring }> {
  return (tables as readonly Table[]).includes(change.table);
}

function tally(counts: Map<string, number>, key: string, by: number): number {
  const count = (counts.get(key) ?? 0) + by;
  if (count > 0) counts.set(key, count);
  else counts.delete(key);
  return count;
}

/** By document: the services that use it. */
export function documentUsers(snapshot: Snapshot): ReadonlyMap<string, readonly Service[]> {
  return usersBy(snapshot, ({ documents }) => documents.map(documentKey));
}
