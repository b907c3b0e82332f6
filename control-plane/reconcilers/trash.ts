/** What is removed goes to the trash, and comes back from it: pure. */
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { contentKey, type DocumentType, documentKey } from '#proto/model/document.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import { isJob, noJob } from '#proto/model/job.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { type Trashed, type TrashedItem, trashedKind, trashedName, trashKey } from '#proto/model/trash.ts';
import { pinnedVolumes } from '#proto/model/volume.ts';
import { DocumentWish, removeDocument } from './document-changes.ts';
import { NetworkWish } from './network-changes.ts';
import { fixedAddressProblem } from './network-ranges.ts';
import { portOwner } from './published-ports.ts';
import { forgetHistory } from './reap.ts';
import { same } from './same.ts';
import { createService, removeService, type WishContext } from './service-changes.ts';
import { beingDeleted, unusedVolumes, volumeUsers } from './volume-changes.ts';

/** Where the cluster's record does not say. */
export const defaultTrashMs = 24 * 3_600_000;

export interface Discarding {
  /** Names of those that may go although they are protected. */
  readonly confirmed?: readonly string[];
  /** Their named volumes too, as far as no other service uses them. */
  readonly volumes?: boolean;
}

/**
 * The services stop and go; what they were is in the trash, as one removal. Faults: `precondition` (protected, or the cluster keeps
 * no trash that volumes could be in).
 */
export function discardServices(
  context: WishContext,
  services: readonly Service[],
  { confirmed = [], volumes = false }: Discarding = {},
): Change[] {
  const standing = services.filter(({ removing }) => !removing);
  for (const { spec } of standing) assertUnprotected(spec, confirmed);
  const items: TrashedItem[] = standing.map((service) => trashedService(context, service));
  if (volumes) items.push(...volumesOf(context, standing));
  return [...standing.flatMap(({ id }) => removeService(context, id)), ...trashed(context, items)];
}

function trashedService({ snapshot }: WishContext, service: Service): TrashedItem {
  const { spec, previous, id, version, revision, previousVersion, previousRevision, rolledBackFrom, createdAtMs } =
    service;
  return {
    kind: 'service',
    ...{ spec, previous },
    was: { id, version, revision, previousVersion, previousRevision, rolledBackFrom, createdAtMs },
    networks: spec.template.networks.flatMap(({ network }) => {
      const held = snapshot.get('network', network)?.value.spec;
      return held && held.project !== '' ? [held] : [];
    }),
    volumes: pinnedVolumes(spec.mode, spec.template).filter((name) => snapshot.get('volume', name) !== undefined),
  };
}

function volumesOf({ snapshot }: WishContext, services: readonly Service[]): readonly TrashedItem[] {
  if (services.length > 0) assertTrash(snapshot);
  const going = new Set(services);
  return [...volumeUsers(snapshot)].flatMap(([name, users]): TrashedItem[] => {
    const volume = snapshot.get('volume', name)?.value;
    const isOnlyTheirs =
      users.every((user) => user.removing || going.has(user)) && users.some((user) => going.has(user));
    return volume && isOnlyTheirs && !snapshot.trashedVolume(name) ? [{ kind: 'volume', volume }] : [];
  });
}

/** Faults: `not-found`, `conflict` (who mounts it), `exists` (it is in the trash already), `precondition` (there is no trash). */
export function discardVolumes(context: WishContext, names: readonly string[]): Change[] {
  assertTrash(context.snapshot);
  const volumes = unusedVolumes(context.snapshot, names);
  return trashed(
    context,
    volumes.map((volume): TrashedItem => ({ kind: 'volume', volume })),
  );
}

/** Data is never deleted by the first word alone. */
function assertTrash(snapshot: Snapshot): void {
  if (trashMsOf(snapshot) > 0) return;
  throw new Fault('precondition', 'volumes are deleted from the trash only, and this cluster keeps none', {
    remedy: 'gantry cluster set trash=1h, and gantry trash empty when it is in there',
  });
}

function assertUnprotected(spec: ServiceSpec, confirmed: readonly string[]): void {
  const name = qualifiedName(spec.project, spec.name);
  if (!spec.protected || confirmed.includes(name) || confirmed.includes(spec.name)) return;
  throw new Fault('precondition', `service ${name} is protected`, {
    remedy: `add --yes-remove-protected ${name}, where that is meant`,
  });
}

/** Faults: `not-found`, `conflict` (who uses it). */
export function discardDocuments(context: WishContext, type: DocumentType, names: readonly string[]): Change[] {
  const changes = names.flatMap((name) => removeDocument(context, type, name));
  const items = names.map((name): TrashedItem => {
    return { kind: 'document', document: context.snapshot.get('document', documentKey({ type, name }))!.value };
  });
  return [...changes, ...trashed(context, items)];
}

function trashed(context: WishContext, items: readonly TrashedItem[]): Change[] {
  const { now, newId, snapshot } = context;
  const trashMs = trashMsOf(snapshot);
  if (trashMs === 0 || items.length === 0) return [];
  const removal = newId();
  return items.map((item): Change => {
    const value: Trashed = { removal, removedAtMs: now, dueAtMs: now + trashMs, item };
    return { table: 'trash', key: trashKey(value), value, expect: 0 };
  });
}

function trashMsOf(snapshot: Snapshot): number {
  return snapshot.cluster?.trashMs ?? defaultTrashMs;
}

export interface Undone {
  readonly changes: readonly Change[];
  readonly items: readonly Trashed[];
  /** Volumes that services had and whose data is gone: they begin with empty ones. */
  readonly lost: readonly string[];
}

/**
 * Brings back the last removal, or of what bears the name the last one: a service, config, secret or volume, all of a project's last
 * removal, or a removal by the start of its id. Faults: `not-found`, `invalid` (ambiguous), `conflict` and `exists` (its name, port or
 * address is somebody's by now, or a volume of it is being deleted), `precondition` (what it needs is gone).
 */
export function undo(context: WishContext, name: string): Undone {
  const items = withWhatTheyUse(context.snapshot, chosen(inOrder(context.snapshot.all('trash')), name));
  for (const { item, going } of items) if (going) throw beingDeleted(trashedName(item));
  const networks = new NetworkWish(context);
  const documents = new DocumentWish(context);
  const changes: Change[] = [];
  const had = items.flatMap(({ item }) => (item.kind === 'service' ? (item.volumes ?? []) : []));
  const lost = [...new Set(had)].filter((name) => context.snapshot.get('volume', name) === undefined);
  for (const { item } of items) if (item.kind === 'document') documents.restore(item.document);
  for (const trashed of items) {
    const { item } = trashed;
    if (item.kind === 'service') changes.push(...restoredService(context, item, networks, documents));
    changes.push(takenOut(context.snapshot, trashed));
  }
  return { changes: [...changes, ...networks.changes, ...documents.changes], items, lost };
}

/** The volumes, configs and secrets that services come back to, and that are in the trash, come back with them. */
function withWhatTheyUse(snapshot: Snapshot, items: readonly Trashed[]): readonly Trashed[] {
  const all = new Map(items.map((trashed) => [trashKey(trashed), trashed]));
  const services = items.flatMap(({ item }) => (item.kind === 'service' ? [item] : []));
  const volumes = services
    .flatMap(({ spec }) => pinnedVolumes(spec.mode, spec.template))
    .flatMap((name) => snapshot.trashedVolume(name) ?? []);
  for (const trashed of [...volumes, ...documentsOf(snapshot, services)]) all.set(trashKey(trashed), trashed);
  return [...all.values()];
}

/** Of several that had one name it is the last; none where another one has it by now. */
function documentsOf(
  snapshot: Snapshot,
  services: readonly Extract<TrashedItem, { kind: 'service' }>[],
): Iterable<Trashed> {
  const templates = services.flatMap(({ spec, previous }) => [spec, ...(previous ? [previous] : [])]);
  const used = new Set(templates.flatMap(({ template }) => template.documents).map(contentKey));
  const last = new Map<string, Trashed>();
  for (const trashed of inOrder(snapshot.all('trash'))) {
    if (trashed.item.kind !== 'document') continue;
    const { document } = trashed.item;
    const key = documentKey(document);
    const isUsed = document.versions.some(({ version }) => used.has(contentKey({ ...document, version })));
    if (isUsed && !last.has(key) && !snapshot.get('document', key)) last.set(key, trashed);
  }
  return last.values();
}

function restoredService(
  context: WishContext,
  { spec, previous, was, networks }: Extract<TrashedItem, { kind: 'service' }>,
  networkWish: NetworkWish,
  documentWish: DocumentWish,
): Change[] {
  const { snapshot, now } = context;
  const name = qualifiedName(spec.project, spec.name);
  const existing = snapshot.serviceNamed(spec.project, spec.name);
  if (existing && !existing.removing)
    throw new Fault('exists', `service ${name} is there again`, { remedy: `remove it first: gantry rm ${name}` });
  for (const port of spec.ports) {
    const owner = portOwner(snapshot, spec, port);
    if (owner)
      throw new Fault(
        'conflict',
        `port ${port.published}/${port.protocol} of service ${name} is published by ${qualifiedName(owner.spec.project, owner.spec.name)} now`,
        { remedy: 'remove that service, or apply this one with another port' },
      );
  }
  for (const network of networks) if (!networkWish.named(network.name)) networkWish.apply(network);
  for (const attachment of spec.template.networks) {
    const network = networkWish.named(attachment.network);
    if (!network)
      throw new Fault('precondition', `network ${attachment.network}, which service ${name} was on, is gone`, {
        remedy: `make it again: gantry network create ${attachment.network}`,
      });
    const problem = attachment.ipv4Address && fixedAddressProblem(snapshot, network, spec, attachment);
    if (problem) throw new Fault('conflict', `service ${name}: ${problem}`, { remedy: 'remove who has it' });
  }
  networkWish.join();
  for (const ref of spec.template.documents) {
    if (!snapshot.get('content', contentKey(ref)) || !documentWish.has(ref))
      throw new Fault('precondition', `${ref.type} ${ref.name}, which service ${name} used, is gone`, {
        remedy: 'apply a file that brings it',
      });
    documentWish.refer(ref);
  }
  if (existing) {
    if ((was && was.id !== existing.id) || !same(existing.spec, spec))
      throw new Fault('conflict', `service ${name} is being removed, and was another one then`, {
        remedy: 'try again when its last task has stopped',
      });
    // Its last tasks are still stopping: it goes on with new ones.
    const expect = snapshot.get('service', existing.id)!.modRevision;
    return [{ table: 'service', key: existing.id, value: { ...existing, removing: false, updatedAtMs: now }, expect }];
  }
  // A job is there again; it runs when it is asked to, or next due.
  const job = isJob(spec) ? { ...noJob, decidedUntilMs: now } : undefined;
  return createService(context, spec).flatMap((change): Change[] => {
    if (change.table !== 'service') return was ? [] : [change];
    return [{ ...change, key: was?.id ?? change.key, value: { ...change.value!, previous, job, ...was } }];
  });
}

/** The last removal first. */
function inOrder(all: Iterable<Trashed>): readonly Trashed[] {
  return [...all].sort((a, b) => b.removedAtMs - a.removedAtMs || (a.removal < b.removal ? 1 : -1));
}

function chosen(all: readonly Trashed[], name: string): readonly Trashed[] {
  const [last] = all;
  if (!last) throw new Fault('not-found', 'the trash is empty', { remedy: 'see gantry trash ls' });
  if (name === '') return all.filter(({ removal }) => removal === last.removal);
  const named = all.filter(({ item }) => namesOf(item).includes(name));
  const kinds = [...new Set(named.map(({ item }) => `${trashedKind(item)} ${trashedName(item)}`))];
  if (kinds.length > 1)
    throw new Fault('invalid', `"${name}" may mean ${kinds.join(' or ')}`, {
      remedy: 'write PROJECT/SERVICE, or the start of a removal’s id: see gantry trash ls',
    });
  if (named.length > 0) return named.slice(0, 1);
  const ofProject = all.filter(({ item }) => item.kind === 'service' && item.spec.project === name);
  if (ofProject.length > 0) return ofProject.filter(({ removal }) => removal === ofProject[0]!.removal);
  const byId = name.length < 4 ? [] : all.filter(({ removal }) => removal.startsWith(name));
  if (byId.length > 0 && byId.every(({ removal }) => removal === byId[0]!.removal)) return byId;
  throw new Fault('not-found', `nothing in the trash is called "${name}"`, { remedy: 'see gantry trash ls' });
}

function namesOf(item: TrashedItem): readonly string[] {
  return item.kind === 'service' ? [item.spec.name, trashedName(item)] : [trashedName(item)];
}

/** What is in the trash by these names, all of it where none is said, is due now. Faults: `not-found`. */
export function emptyTrash({ snapshot, now }: WishContext, names: readonly string[]): Omit<Undone, 'lost'> {
  const all = [...snapshot.all('trash')];
  for (const name of names)
    if (!all.some(({ item }) => namesOf(item).includes(name)))
      throw new Fault('not-found', `nothing in the trash is called "${name}"`, { remedy: 'see gantry trash ls' });
  const items = all.filter(({ item }) => names.length === 0 || namesOf(item).some((name) => names.includes(name)));
  const changes = items.map((trashed): Change => {
    const key = trashKey(trashed);
    const value = { ...trashed, dueAtMs: Math.min(now, trashed.dueAtMs) };
    return { table: 'trash', key, value, expect: snapshot.get('trash', key)!.modRevision };
  });
  return { changes, items };
}

/** It is gone for good: its record, and the history of a service that is not there any more; what only they referred to follows. */
export function emptied(snapshot: Snapshot, trashed: Trashed): Change[] {
  const { item } = trashed;
  const gone = item.kind === 'service' && item.was && !snapshot.service(item.was.id) ? item.was.id : undefined;
  return [takenOut(snapshot, trashed), ...(gone ? forgetHistory(snapshot, gone) : [])];
}

function takenOut(snapshot: Snapshot, trashed: Trashed): Change {
  const key = trashKey(trashed);
  return { table: 'trash', key, value: undefined, expect: snapshot.get('trash', key)!.modRevision };
}
