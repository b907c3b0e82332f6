/** Named volumes: who mounts them, and whether they may be mounted. Pure. */
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { type Trashed, trashKey } from '#proto/model/trash.ts';
import { pinnedVolumes, type Volume } from '#proto/model/volume.ts';
import { usersBy } from './users.ts';

/** By name; global services have volumes of their own on each node, of which nothing is recorded. */
export function volumeUsers(snapshot: Snapshot): ReadonlyMap<string, readonly Service[]> {
  return usersBy(snapshot, (template, mode) => pinnedVolumes(mode, template));
}

/** Faults: `not-found`, `conflict` (who mounts it), `exists` (it is in the trash already). */
export function unusedVolumes(snapshot: Snapshot, names: readonly string[]): readonly Volume[] {
  const users = volumeUsers(snapshot);
  return names.map((name) => {
    const volume = snapshot.get('volume', name)?.value;
    if (!volume) throw new Fault('not-found', `there is no volume ${name}`, { remedy: 'see gantry volume ls' });
    if (snapshot.trashedVolume(name)) throw new Fault('exists', `volume ${name} is in the trash already`);
    const mounting = (users.get(name) ?? []).map(({ spec }) => qualifiedName(spec.project, spec.name)).sort();
    if (mounting.length > 0)
      throw new Fault('conflict', `volume ${name} is in use by ${mounting.join(', ')}`, {
        remedy: 'remove these services first, or apply them without it; what a rollback would bring back counts too',
      });
    return volume;
  });
}

/** Nobody mounts what is about to be deleted. Faults: `conflict`. */
export function assertVolumesKept(snapshot: Snapshot, { mode, template }: ServiceSpec): void {
  const name = pinnedVolumes(mode, template).find((name) => snapshot.trashedVolume(name));
  if (name === undefined) return;
  if (snapshot.trashedVolume(name)?.going) throw beingDeleted(name);
  throw new Fault('conflict', `volume ${name} is in the trash`, {
    remedy: `gantry undo ${name} brings it back with its data, gantry trash empty ${name} deletes that`,
  });
}

export function beingDeleted(name: string): Fault {
  return new Fault('conflict', `the data of volume ${name} is being deleted at this moment`, {
    remedy: 'try again in a few seconds, when its node has said that it is gone: then the volume begins empty',
  });
}

/** What becomes of a volume in the trash whose time is up. */
export type VolumeEnd =
  /** Somebody mounts it after all, or it is gone: its data stays where it is. */
  | { readonly do: 'keep' }
  /** Who mounts it is about to end. */
  | { readonly do: 'wait' }
  /** Its node has its data; before it is asked, that is written down. */
  | { readonly do: 'delete'; readonly volume: Volume }
  /** Its node is gone, and its data with it. */
  | { readonly do: 'forget' };

export function endOfVolume(snapshot: Snapshot, name: string, going = false): VolumeEnd {
  const volume = snapshot.get('volume', name)?.value;
  if (!volume) return { do: 'keep' };
  const users = going ? [] : (volumeUsers(snapshot).get(name) ?? []);
  if (users.some(({ removing }) => !removing)) return { do: 'keep' };
  if (users.length > 0) return { do: 'wait' };
  return snapshot.node(volume.nodeId) ? { do: 'delete', volume } : { do: 'forget' };
}

/** It is written down that its data goes: from here on nobody takes it back. */
export function goingVolume(snapshot: Snapshot, trashed: Trashed): Change {
  const key = trashKey(trashed);
  const expect = snapshot.get('trash', key)?.modRevision ?? 0;
  return { table: 'trash', key, value: { ...trashed, going: true }, expect };
}

/** Its records go: its data has. None where they have gone already: by its name there may be another one by now. */
export function deletedVolume(snapshot: Snapshot, trashed: Trashed, name: string): Change[] {
  const key = trashKey(trashed);
  const held = snapshot.get('trash', key);
  if (!held) return [];
  const changes: Change[] = [{ table: 'trash', key, value: undefined, expect: held.modRevision }];
  const record = snapshot.get('volume', name);
  if (record) changes.push({ table: 'volume', key: name, value: undefined, expect: record.modRevision });
  return changes;
}
