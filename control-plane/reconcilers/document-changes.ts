/** What wishes about configs and secrets change in the store: pure. A content is kept as long as something refers to it, and nothing can come to refer to it while it goes. */
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault } from '#proto/kernel/errors.ts';
import {
  contentKey,
  type Document,
  type DocumentRef,
  type DocumentType,
  documentKey,
  type SealedContent,
} from '#proto/model/document.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import { type DocumentUse, documentUsers } from './document-usage.ts';
import { same } from './same.ts';
import { updateService, type WishContext } from './service-changes.ts';

/** A document as somebody wants it. */
export interface WantedDocument extends DocumentRef {
  readonly project: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly bytes: number;
  /** Called where the content is not in the store yet. */
  readonly seal: () => SealedContent;
}

/** The documents of one wish, one after another. */
export class DocumentWish {
  readonly #context: WishContext;
  /** Records that the wish writes, by key: who only comes to refer to one writes it unchanged, so that it cannot go at the same moment. */
  readonly #documents = new Map<string, Document>();
  readonly #contents: Change[] = [];

  constructor(context: WishContext) {
    this.#context = context;
  }

  get changes(): readonly Change[] {
    const { snapshot } = this.#context;
    const documents = [...this.#documents].map(([key, value]): Change => {
      return { table: 'document', key, value, expect: snapshot.get('document', key)?.modRevision ?? 0 };
    });
    return [...this.#contents, ...documents];
  }

  /** The document as it is wanted. Fault `conflict`: it is another project's. */
  apply(wanted: WantedDocument): 'create' | 'update' | 'unchanged' {
    const { type, name, version, project, labels, bytes } = wanted;
    const { snapshot, now } = this.#context;
    const key = documentKey(wanted);
    const before = snapshot.get('document', key)?.value;
    if (before && before.project !== project) throw owned(before);
    if (before?.version === version && same(before.labels, labels)) return 'unchanged';
    const kept = before?.versions ?? [];
    const isKept = kept.some((one) => one.version === version);
    if (!isKept) {
      // Of a removed document it may be there still, about to go: written again, it stays.
      const expect = snapshot.get('content', contentKey(wanted))?.modRevision ?? 0;
      this.#contents.push({ table: 'content', key: contentKey(wanted), value: wanted.seal(), expect });
    }
    this.#documents.set(key, {
      type,
      name,
      project,
      labels,
      version,
      versions: isKept ? kept : [...kept, { version, bytes, createdAtMs: now }],
      createdAtMs: before?.createdAtMs ?? now,
      updatedAtMs: now,
    });
    return before ? 'update' : 'create';
  }

  /** A removed one comes back. Fault `exists`: another one has its name by now. */
  restore(document: Document): void {
    const { type, name } = document;
    const key = documentKey(document);
    if (this.#context.snapshot.get('document', key))
      throw new Fault('exists', `${type} ${name} is there again`, { remedy: `see gantry ${type} inspect ${name}` });
    this.#documents.set(key, document);
  }

  /** It is there, or comes by this wish. */
  has(ref: DocumentRef): boolean {
    const key = documentKey(ref);
    return this.#documents.has(key) || this.#context.snapshot.get('document', key) !== undefined;
  }

  /** Something comes to refer to it. */
  refer(ref: DocumentRef): void {
    const key = documentKey(ref);
    const document = this.#context.snapshot.get('document', key)?.value;
    if (document && !this.#documents.has(key)) this.#documents.set(key, document);
  }
}

/**
 * The document made or changed by hand; the services that use it roll to the new content.
 * Faults: `conflict` (it is a project's, or one of the services is being removed).
 */
export function putDocument(
  context: WishContext,
  wanted: WantedDocument,
): {
  readonly action: 'create' | 'update' | 'unchanged';
  readonly changes: readonly Change[];
  readonly services: readonly Service[];
} {
  const wish = new DocumentWish(context);
  const action = wish.apply(wanted);
  const services: Service[] = [];
  const changes: Change[] = [];
  for (const service of documentUsers(context.snapshot).get(documentKey(wanted)) ?? []) {
    if (service.removing) continue;
    const { template } = service.spec;
    const isOld = (ref: DocumentRef) => documentKey(ref) === documentKey(wanted) && ref.version !== wanted.version;
    if (!template.documents.some(isOld)) continue;
    const documents = template.documents.map((mount) => (isOld(mount) ? { ...mount, version: wanted.version } : mount));
    wish.refer(wanted);
    changes.push(...updateService(context, service.id, { ...service.spec, template: { ...template, documents } }));
    services.push(service);
  }
  return { action, changes: [...wish.changes, ...changes], services };
}

/** What it holds goes when nothing refers to that any more. Faults: `not-found`, `conflict` (who uses it). */
export function removeDocument({ snapshot }: WishContext, type: DocumentType, name: string): Change[] {
  const key = documentKey({ type, name });
  const record = snapshot.get('document', key);
  if (!record) throw notFound(type, name);
  const users = documentUsers(snapshot).get(key) ?? [];
  if (users.length > 0)
    throw new Fault('conflict', `${type} ${name} is in use by ${listed(users)}`, {
      remedy: 'remove these services first, or apply them without it; what a rollback would bring back counts too',
    });
  return [{ table: 'document', key, value: undefined, expect: record.modRevision }];
}

export function notFound(type: DocumentType, name: string): Fault {
  return new Fault('not-found', `there is no ${type} ${name}`, { remedy: `see gantry ${type} ls` });
}

/**
 * What nothing refers to any more goes: contents that are not the current one, also of a document that was removed, and with its last
 * reference a project's document.
 */
export function reapDocument(snapshot: Snapshot, use: DocumentUse, key: string): Change[] {
  const record = snapshot.get('document', key);
  if (record && record.value.project !== '' && !use.refersToAny(key)) return removal(snapshot, record.value);
  const isKept = (ref: DocumentRef) => ref.version === record?.value.version || use.refersTo(ref);
  const changes = [...snapshot.contentsOfDocument(key)]
    .filter((content) => !isKept(content))
    .map((content) => removalOfContent(snapshot, content));
  if (!record) return changes;
  const { type, name, versions } = record.value;
  const kept = versions.filter(({ version }) => isKept({ type, name, version }));
  if (kept.length === versions.length) return changes;
  return [
    ...changes,
    { table: 'document', key, value: { ...record.value, versions: kept }, expect: record.modRevision },
  ];
}

function removal(snapshot: Snapshot, document: Document): Change[] {
  const key = documentKey(document);
  return [
    ...[...snapshot.contentsOfDocument(key)].map((content) => removalOfContent(snapshot, content)),
    { table: 'document', key, value: undefined, expect: snapshot.get('document', key)!.modRevision },
  ];
}

function removalOfContent(snapshot: Snapshot, ref: DocumentRef): Change {
  const key = contentKey(ref);
  return { table: 'content', key, value: undefined, expect: snapshot.get('content', key)?.modRevision ?? 0 };
}

function owned({ type, name, project }: Document): Fault {
  return new Fault(
    'conflict',
    project === '' ? `${type} ${name} was made by hand` : `${type} ${name} belongs to project ${project}`,
    {
      remedy:
        project === ''
          ? 'write external: true to use it, or give this one another name:'
          : 'change it in its Compose file, or choose another name',
    },
  );
}

function listed(services: readonly Service[]): string {
  const names = services.map(({ spec }) => qualifiedName(spec.project, spec.name)).sort();
  const few = names.slice(0, 5).join(', ');
  return names.length > 5 ? `${few} and ${names.length - 5} more` : few;
}
