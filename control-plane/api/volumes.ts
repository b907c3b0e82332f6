/** Named volumes: where they are, who mounts them, and to the trash with them. */
import { discardVolumes } from '#control-plane/reconcilers/trash.ts';
import { volumeUsers } from '#control-plane/reconcilers/volume-changes.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ChangeResponse, RemoveVolumeRequest, VolumeSummary } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Volume } from '#proto/model/volume.ts';
import { toWire } from '#proto/model/wire.ts';
import { nameOfService } from './names.ts';
import { commitWish, type OperatorParts } from './parts.ts';

/** All or none. Faults: `not-found`, `conflict` (who mounts it), `exists` (it is in the trash already). */
export async function removeVolume(parts: OperatorParts, request: RemoveVolumeRequest): Promise<ChangeResponse> {
  const names = [...new Set(request.names)];
  if (names.length === 0) throw new Fault('invalid', 'no volume was named', { remedy: 'see gantry volume ls' });
  const revision = await commitWish(parts, (context) => discardVolumes(context, names));
  return { revision, serviceIds: [], names, message: `removed ${names.join(', ')}` };
}

/** By name. */
export function volumeSummaries(snapshot: Snapshot, project: string): VolumeSummary[] {
  const users = volumeUsers(snapshot);
  return [...snapshot.all('volume')]
    .filter(({ name }) => project === '' || name.startsWith(`${project}_`))
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .map((volume) => summary(snapshot, volume, users));
}

/** Faults: `not-found`. */
export function findVolume(snapshot: Snapshot, name: string): VolumeSummary {
  const volume = snapshot.get('volume', name)?.value;
  if (!volume) throw new Fault('not-found', `there is no volume ${name}`, { remedy: 'see gantry volume ls' });
  return summary(snapshot, volume, volumeUsers(snapshot));
}

function summary(snapshot: Snapshot, volume: Volume, users: ReturnType<typeof volumeUsers>): VolumeSummary {
  const services = (users.get(volume.name) ?? []).map(nameOfService).sort();
  return {
    volume: toWire<Volume>(volume),
    services,
    trashedUntilMs: snapshot.trashedVolume(volume.name)?.dueAtMs ?? 0,
  };
}
