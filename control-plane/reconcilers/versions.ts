/** The history of a service: each change of its spec is a version, kept whole, so that going back restores everything. */
import type { Change } from '#control-plane/store/records.ts';
import { revisionKey, type Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import type { Service, ServiceSpec, Version } from '#proto/model/service.ts';

/** Versions kept of each service, those that it is at or may go back to among them. */
export const keptVersions = 10;

/** How a version came about. */
export type Occasion = Pick<Version, 'kind' | 'why'> & Partial<Pick<Version, 'by' | 'outcome'>>;

/** The version that `next` is now; where `before`, which it follows, was never written down (it is older than the history), that too. */
export function recorded(
  snapshot: Snapshot,
  now: number,
  before: Service | undefined,
  next: Service,
  occasion: Occasion,
): Change[] {
  const changes = [putVersion(snapshot, versionOf(next, now, occasion))];
  const isOld = before && snapshot.service(before.id)?.version === before.version && before.version !== next.version;
  if (isOld && !snapshot.versionOf(before.id, before.version)) {
    const first = versionOf(before, before.updatedAtMs, { kind: 'apply', why: 'before the history begins' });
    changes.unshift(putVersion(snapshot, first));
  }
  return changes;
}

/** How the rollout of the service's version ended; nothing where that is known. */
export function withOutcome(
  snapshot: Snapshot,
  { id, version }: Service,
  outcome: Version['outcome'],
  message: string,
): Change[] {
  const record = snapshot.versionOf(id, version);
  if (!record || (record.outcome === outcome && record.message === message)) return [];
  return [putVersion(snapshot, { ...record, outcome, message })];
}

/** As `withOutcome`, where the rollout of the service has ended. */
export function withOutcomeOf(snapshot: Snapshot, service: Service): Change[] {
  const { state, message } = service.rollout;
  if (state === 'paused') return withOutcome(snapshot, service, 'paused', message);
  const hasEnded = state === 'completed' || state === 'rolled-back';
  return hasEnded ? withOutcome(snapshot, service, 'completed', message) : [];
}

/** A number that no version and no revision of the service has had. */
export function nextVersion(snapshot: Snapshot, { id, version, revision }: Service): number {
  let highest = Math.max(version, revision);
  for (const { number } of snapshot.revisionsOfService(id)) highest = Math.max(highest, number);
  for (const { number } of snapshot.versionsOfService(id)) highest = Math.max(highest, number);
  return highest + 1;
}

/** The version to go back to. Faults: `not-found`, `invalid` (it is there). */
export function versionToReturnTo(snapshot: Snapshot, service: Service, number: number): Version {
  const name = qualifiedName(service.spec.project, service.spec.name);
  if (number === service.version) throw new Fault('invalid', `service ${name} is at version ${number} already`);
  const version = snapshot.versionOf(service.id, number);
  if (version) return version;
  const kept = [...snapshot.versionsOfService(service.id)].map((one) => one.number).sort((a, b) => a - b);
  throw new Fault('not-found', `service ${name} has no version ${number}`, {
    remedy:
      kept.length > 0 ? `it has ${kept.join(', ')}: see gantry history ${service.spec.name}` : 'apply the file again',
  });
}

/** The version's spec; replicas stay as they are where the last change of their number since then was a scaling. */
export function specToReturnTo(snapshot: Snapshot, service: Service, { number, spec }: Version): ServiceSpec {
  const later = [...snapshot.versionsOfService(service.id)].filter((one) => one.number > number);
  let { replicas } = spec;
  let scaled = false;
  for (const one of later.sort((a, b) => a.number - b.number)) {
    if (one.spec.replicas === replicas) continue;
    replicas = one.spec.replicas;
    scaled = one.kind === 'scale';
  }
  return scaled ? { ...spec, replicas: service.spec.replicas } : spec;
}

/** Versions that history need not show any more: not among the newest, and nothing goes back to them by itself. */
export function reapVersions(service: Service, versions: Iterable<Version>): Version[] {
  const all = [...versions];
  if (all.length <= keptVersions) return [];
  return all
    .sort((a, b) => b.number - a.number)
    .slice(keptVersions)
    .filter(({ number }) => number !== service.version && number !== service.previousVersion);
}

function versionOf({ id, version, spec, revision }: Service, createdAtMs: number, occasion: Occasion): Version {
  return { serviceId: id, number: version, spec, revision, by: '', createdAtMs, outcome: '', message: '', ...occasion };
}

function putVersion(snapshot: Snapshot, version: Version): Change {
  const key = revisionKey(version.serviceId, version.number);
  return { table: 'version', key, value: version, expect: snapshot.get('version', key)?.modRevision ?? 0 };
}
