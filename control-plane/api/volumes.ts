/** Named volumes: where they are, who mounts them, and to the trash with them. */
import { discardVolumes } from '#control-plane/reconcilers/trash.ts';
import { volumeUsers } from '#control-plane/reconcilers/volume-changes.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ChangeResponse, RemoveVolumeRequest, VolumeSummary } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { isPerNode } from '#proto/model/job.ts';
import { namedVolumes, type Volume } from '#proto/model/volume.ts';
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
  return [...[...snapshot.all('volume')].map((volume) => summary(snapshot, volume, users)), ...perNodeVolumes(snapshot)]
    .filter(({ volume }) => project === '' || volume!.name.startsWith(`${project}_`))
    .sort((a, b) => compare(a.volume!.name, b.volume!.name) || compare(a.volume!.nodeName, b.volume!.nodeName));
}

/** Global services have one on each node: of those no records are kept, but whoever has a task there, or had, has made it. */
function perNodeVolumes(snapshot: Snapshot): VolumeSummary[] {
  const found = new Map<string, VolumeSummary>();
  for (const service of snapshot.all('service')) {
    if (!isPerNode(service.spec)) continue;
    for (const task of snapshot.tasksOfService(service.id)) {
      if (task.nodeId === '' || task.startedAtMs === 0) continue;
      const template = snapshot.revisionOf(service.id, task.revision)?.template;
      for (const name of template ? namedVolumes(template) : []) {
        const key = `${name} ${task.nodeId}`;
        const known = found.get(key);
        const createdAtMs = Math.min(task.createdAtMs, known?.volume?.createdAtMs ?? task.createdAtMs);
        const volume = { name, nodeId: task.nodeId, nodeName: task.nodeName, createdAtMs };
        const services = [...new Set([...(known?.services ?? []), nameOfService(service)])].sort();
        found.set(key, { volume, services, trashedUntilMs: 0 });
      }
    }
  }
  return [...found.values()];
}

function compare(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Faults: `not-found`. */
export function findVolume(snapshot: Snapshot, name: string): VolumeSummary {
  const volume = snapshot.get('volume', name)?.value;
  const own = volume ? undefined : perNodeVolumes(snapshot).find((one) => one.volume?.name === name);
  if (own)
    throw new Fault('invalid', `volume ${name} is one on each node of ${own.services.join(', ')}`, {
      remedy: 'see gantry volume ls',
    });
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
