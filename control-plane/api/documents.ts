/** Configs and secrets: what a file declares of them, and what is made, listed and removed by hand. */
import { type Findings, refuse } from '#control-plane/compose/diagnostic.ts';
import type { ResolvedDocument } from '#control-plane/compose/documents.ts';
import type { ResolvedService } from '#control-plane/compose/resolved-service.ts';
import {
  type DocumentWish,
  notFound,
  putDocument as putting,
  type WantedDocument,
} from '#control-plane/reconcilers/document-changes.ts';
import { documentUsers } from '#control-plane/reconcilers/document-usage.ts';
import { discardDocuments } from '#control-plane/reconcilers/trash.ts';
import type { ContentSeal } from '#control-plane/security/seal.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type {
  ChangeResponse,
  DocumentSummary,
  PlannedDocument,
  PutDocumentRequest,
  PutDocumentResponse,
  ReadConfigRequest,
  ReadConfigResponse,
  RemoveDocumentRequest,
} from '#proto/gen/gantry/v1/operator.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { Concealed } from '#proto/model/concealed.ts';
import {
  contentKey,
  type Document,
  type DocumentRef,
  type DocumentType,
  documentKey,
  documentTypes,
  isDocumentName,
  largestBytes,
} from '#proto/model/document.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { toWire } from '#proto/model/wire.ts';
import { nameOfService } from './names.ts';
import { commitWish, type OperatorParts } from './parts.ts';

/** The versions that a file's documents have, by their keys: as declared, or as they are where they are external. */
export function decideDocuments(
  findings: Findings,
  snapshot: Snapshot,
  wish: DocumentWish,
  contents: ContentSeal,
  documents: readonly ResolvedDocument[],
): { readonly planned: PlannedDocument[]; readonly versions: ReadonlyMap<string, string> } {
  const planned: PlannedDocument[] = [];
  const versions = new Map<string, string>();
  for (const document of documents) {
    const { type, name, content, place } = document;
    const key = documentKey(document);
    if (!content) {
      const held = snapshot.get('document', key)?.value;
      if (held) versions.set(key, held.version);
      else
        refuse(
          findings,
          place,
          `${type} ${name} is external, and there is none of that name`,
          `make it: gantry ${type} create ${name} FILE`,
        );
      continue;
    }
    const wanted = wantedOf(contents, document, content);
    versions.set(key, wanted.version);
    try {
      planned.push({ action: wish.apply(wanted), type, name });
    } catch (error) {
      if (!isFault(error, 'conflict')) throw error;
      refuse(findings, place, error.message, error.remedy ?? '');
    }
  }
  return { planned, versions };
}

/** The service's spec with the versions of its documents; what it comes to refer to is told to the wish. */
export function withVersions(
  { spec }: ResolvedService,
  before: ServiceSpec | undefined,
  versions: ReadonlyMap<string, string>,
  wish: DocumentWish,
): ServiceSpec {
  const { template } = spec;
  if (template.documents.length === 0) return spec;
  const documents = template.documents.map((mount) => ({ ...mount, version: versions.get(documentKey(mount)) ?? '' }));
  const held = new Set(before?.template.documents.map(contentKey));
  for (const mount of documents) if (!held.has(contentKey(mount))) wish.refer(mount);
  return { ...spec, template: { ...template, documents } };
}

function wantedOf(
  contents: ContentSeal,
  { type, name, project, labels }: Pick<Document, 'type' | 'name' | 'project' | 'labels'>,
  content: Concealed,
): WantedDocument {
  const ref: DocumentRef = { type, name, version: contents.version({ type, name }, content) };
  return { ...ref, project, labels, bytes: content.length, seal: () => contents.seal(ref, content) };
}

/** Faults: `invalid`, `conflict` (it is a project's). */
export async function putDocument(parts: OperatorParts, request: PutDocumentRequest): Promise<PutDocumentResponse> {
  const { name, data, labels } = request;
  const type = typeNamed(request.type);
  if (!isDocumentName(name))
    throw new Fault('invalid', `"${name}" cannot name a ${type}`, {
      remedy: 'use letters, digits, ., - and _, at most 128',
    });
  if (data.length > largestBytes[type])
    throw new Fault('invalid', `${type} ${name} has ${data.length} bytes`, {
      remedy: `at most ${largestBytes[type]} fit: use a volume`,
    });
  const wanted = wantedOf(parts.contents, { type, name, project: '', labels }, new Concealed(data));
  let result: ReturnType<typeof putting> | undefined;
  const revision = await commitWish(parts, (context) => {
    result = putting(context, wanted);
    return result.changes;
  });
  const { action, services } = result!;
  const names = services.map(nameOfService);
  const word = { create: 'created', update: 'changed', unchanged: 'unchanged:' }[action];
  const rolling = names.length > 0 ? `; ${names.join(', ')} roll${names.length === 1 ? 's' : ''} to it` : '';
  const serviceIds = services.map(({ id }) => id);
  return { action, change: { revision, serviceIds, names, message: `${word} ${type} ${name}${rolling}` } };
}

/** All or none. Faults: `not-found`, `conflict` (who uses it). */
export async function removeDocument(parts: OperatorParts, request: RemoveDocumentRequest): Promise<ChangeResponse> {
  const type = typeNamed(request.type);
  const names = [...new Set(request.names)];
  if (names.length === 0)
    throw new Fault('invalid', `no ${type} was named`, { remedy: `name one: see gantry ${type} ls` });
  const revision = await commitWish(parts, (context) => discardDocuments(context, type, names));
  return { revision, serviceIds: [], names, message: `removed ${names.join(', ')}` };
}

/** Of a config alone. Faults: `not-found`, `invalid` (ambiguous). */
export function readConfig(
  { store, contents }: OperatorParts,
  { name, version }: ReadConfigRequest,
): ReadConfigResponse {
  const { document } = findDocument(store.snapshot, 'config', name);
  const found = document!.versions.filter((one) =>
    version === '' ? one.version === document!.version : one.version.startsWith(version),
  );
  const [one] = found;
  if (!one)
    throw new Fault('not-found', `config ${name} has no version ${version}`, {
      remedy: `see gantry config inspect ${name}`,
    });
  if (found.length > 1)
    throw new Fault('invalid', `"${version}" may mean ${found.map((one) => one.version).join(' or ')}`);
  const ref: DocumentRef = { type: 'config', name, version: one.version };
  const sealed = store.snapshot.get('content', contentKey(ref))?.value;
  if (!sealed) throw new Fault('corrupt', `the content of config ${name} is not in the store`);
  return { data: Buffer.from(contents.open(sealed).reveal()) };
}

/** By name. */
export function documentSummaries(snapshot: Snapshot, type: DocumentType, project: string): DocumentSummary[] {
  const users = documentUsers(snapshot);
  return [...snapshot.all('document')]
    .filter((document) => document.type === type && (project === '' || document.project === project))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((document) => summary(document, users));
}

/** Faults: `not-found`. */
export function findDocument(snapshot: Snapshot, type: DocumentType, name: string): DocumentSummary {
  const document = snapshot.get('document', documentKey({ type, name }))?.value;
  if (!document) throw notFound(type, name);
  return summary(document, documentUsers(snapshot));
}

function summary(document: Document, users: ReturnType<typeof documentUsers>): DocumentSummary {
  const services = (users.get(documentKey(document)) ?? []).map(nameOfService).sort();
  return { document: toWire<Document>(document), services };
}

/** Faults: `invalid`. */
export function typeNamed(text: string): DocumentType {
  const found = documentTypes.find((type) => type === text);
  if (found) return found;
  throw new Fault('invalid', `"${text}" is neither config nor secret`);
}
