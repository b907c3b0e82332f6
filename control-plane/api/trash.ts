/** The trash: what is in it, what comes back from it, and what goes for good. */
import { emptyTrash as emptying, undo as undoing } from '#control-plane/reconcilers/trash.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ChangeResponse, EmptyTrashRequest, TrashedSummary, UndoRequest } from '#proto/gen/gantry/v1/operator.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import { type Trashed, trashedKind, trashedName } from '#proto/model/trash.ts';
import { commitWish, type OperatorParts } from './parts.ts';

/** Faults: `not-found`, `invalid` (ambiguous), `exists`, `conflict`, `precondition`. */
export async function undo(parts: OperatorParts, { name }: UndoRequest): Promise<ChangeResponse> {
  let items: readonly Trashed[] = [];
  let lost: readonly string[] = [];
  const revision = await commitWish(parts, (context) => {
    const undone = undoing(context, name);
    ({ items, lost } = undone);
    return undone.changes;
  });
  const { snapshot } = parts.store;
  const names: string[] = [];
  const serviceIds: string[] = [];
  for (const { item } of items) {
    const service = item.kind === 'service' ? snapshot.serviceNamed(item.spec.project, item.spec.name) : undefined;
    if (!service) continue;
    serviceIds.push(service.id);
    names.push(qualifiedName(service.spec.project, service.spec.name));
  }
  const message = `brought back ${listed(items)}${lost.length > 0 ? `; ${emptyNow(lost)}` : ''}`;
  return { revision, serviceIds, names, message };
}

function emptyNow(volumes: readonly string[]): string {
  const [what, was] = volumes.length === 1 ? ['volume', 'was'] : ['volumes', 'were'];
  return `the data of ${what} ${[...volumes].sort().join(', ')} ${was} deleted meanwhile: it begins with an empty one`;
}

/** It goes within a second; the leader sees to it. Faults: `not-found`. */
export async function emptyTrash(parts: OperatorParts, { names }: EmptyTrashRequest): Promise<ChangeResponse> {
  let items: readonly Trashed[] = [];
  const revision = await commitWish(parts, (context) => {
    const emptied = emptying(context, names);
    items = emptied.items;
    return emptied.changes;
  });
  const message = items.length === 0 ? 'the trash is empty' : `gone for good: ${listed(items)}`;
  return { revision, serviceIds: [], names: items.map(({ item }) => trashedName(item)), message };
}

/** The last removal first. */
export function trashSummaries(snapshot: Snapshot): TrashedSummary[] {
  return [...snapshot.all('trash')]
    .sort((a, b) => b.removedAtMs - a.removedAtMs || (nameOf(a) < nameOf(b) ? -1 : 1))
    .map((trashed) => {
      const { removal, removedAtMs, dueAtMs, item } = trashed;
      return { removal, removedAtMs, dueAtMs, kind: trashedKind(item), name: trashedName(item) };
    });
}

function nameOf({ item }: Trashed): string {
  return `${trashedKind(item)} ${trashedName(item)}`;
}

function listed(items: readonly Trashed[]): string {
  const names = items.map(nameOf).sort();
  return names.length > 10 ? `${names.slice(0, 10).join(', ')} and ${names.length - 10} more` : names.join(', ');
}
