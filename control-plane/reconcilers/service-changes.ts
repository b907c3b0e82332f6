/** What a wish of the operator changes in the store: pure, so that `plan` and `apply` cannot differ. */

import { hostPortsOf } from '#control-plane/scheduler/filters.ts';
import type { Change, Table, Tables } from '#control-plane/store/records.ts';
import { revisionKey, type Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import { contentKey } from '#proto/model/document.ts';
import { type NodeId, qualifiedName, type ServiceId, serviceId } from '#proto/model/ids.ts';
import { isJob, latestIteration, noJob } from '#proto/model/job.ts';
import type { Node } from '#proto/model/node.ts';
import { idleRollout, type Revision, type Rollout, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { occupiesNode } from '#proto/model/task.ts';
import { pinnedVolumes } from '#proto/model/volume.ts';
import { changesInPlace } from './in-place.ts';
import { another, newJob, updatedJob } from './iterations.ts';
import { needsNewTasks } from './new-tasks.ts';
import { isUnproven } from './rollout.ts';
import { same } from './same.ts';
import { usersBy } from './users.ts';
import {
  nextVersion,
  type Occasion,
  recorded,
  specToReturnTo,
  versionToReturnTo,
  withOutcome,
  withOutcomeOf,
} from './versions.ts';
import { assertVolumesKept } from './volume-changes.ts';

/** What every wish is decided on: one snapshot, the wall clock in ms, and a source of fresh ids. */
export interface WishContext {
  readonly snapshot: Snapshot;
  readonly now: number;
  readonly newId: () => string;
  /** The operator who asks, for the history; absent where nobody does. */
  readonly by?: string;
}

const nothingBefore = { previous: undefined, previousVersion: 0, previousRevision: 0, rolledBackFrom: 0 } as const;

/** A service that is not there yet, and its first revision. Faults: `exists`, `conflict` while one of that name is being removed. */
export function createService(context: WishContext, spec: ServiceSpec): Change[] {
  const existing = context.snapshot.serviceNamed(spec.project, spec.name);
  if (existing) throw existing.removing ? beingRemoved(existing) : alreadyThere(existing);
  const id = serviceId(context.newId());
  const service: Service = {
    id,
    spec,
    version: 1,
    revision: 1,
    vip: '',
    createdAtMs: context.now,
    updatedAtMs: context.now,
    rollout: idleRollout,
    ...nothingBefore,
    removing: false,
    job: newJob(spec, context.now),
    autoscaled: undefined,
  };
  return [
    put(context, 'service', id, service),
    putRevision(context, service, 1),
    ...record(context, undefined, service, { kind: 'apply', why: 'created', outcome: 'completed' }),
  ];
}

/**
 * The service with a new spec, a new version of it. What needs new tasks is a new revision too, and begins a rollout. `previous` is the spec
 * before, or, where that was not rolled out to its end, the last one that was: a way back leads to what is known to work. No change
 * at all gives no changes. Faults: `not-found`, `invalid` (another name or mode), `conflict` (being removed).
 */
export function updateService(context: WishContext, id: ServiceId, spec: ServiceSpec): Change[] {
  const service = standing(context, id);
  if (spec.name !== service.spec.name || spec.project !== service.spec.project) {
    throw new Fault('invalid', `service ${nameOf(service)} cannot become ${qualifiedName(spec.project, spec.name)}`, {
      remedy: 'apply it as a new service and remove the old one',
    });
  }
  if (spec.mode !== service.spec.mode) {
    throw new Fault('invalid', `service ${nameOf(service)} is ${service.spec.mode} and cannot become ${spec.mode}`, {
      remedy: 'remove it first, then apply it again',
    });
  }
  if (same(service.spec, spec)) return triedAgain(context, service);
  return change(context, service, spec, { kind: 'apply', why: 'applied' });
}

/** A step before a service that has failed is for whoever applies the file again; all else that is unchanged stays as it is. */
function triedAgain(context: WishContext, service: Service): Change[] {
  const { spec, job, revision } = service;
  if (spec.preStartOf === '' || !job || latestIteration(service)?.state !== 'failed') return [];
  const beginning = { spec, revision, now: context.now, dueAtMs: 0, message: 'applied again' };
  return [put(context, 'service', service.id, { ...service, updatedAtMs: context.now, job: another(job, beginning) })];
}

/** The standing service with another spec, by a rollout where it takes new tasks. */
function change(context: WishContext, service: Service, spec: ServiceSpec, occasion: Occasion): Change[] {
  const { snapshot } = context;
  const version = nextVersion(snapshot, service);
  const proven = !isUnproven(service);
  const base: Service = {
    ...service,
    spec,
    version,
    updatedAtMs: context.now,
    rolledBackFrom: 0,
    autoscaled: spec.autoscale && service.autoscaled,
    ...(proven && {
      previous: service.spec,
      previousVersion: service.version,
      previousRevision: service.revision,
    }),
  };
  if (!needsNewTasks(service.spec, spec)) {
    const outcome = proven ? 'completed' : '';
    const next = { ...base, job: updatedJob(service, spec, service.revision, context.now) };
    return [put(context, 'service', service.id, next), ...record(context, service, next, { ...occasion, outcome })];
  }
  const { previous, previousRevision } = base;
  // An update that is taken back by hand, before its end: tasks that were not replaced yet stay.
  const returns = !proven && previous !== undefined && !needsNewTasks(previous, spec);
  const revision = returns && snapshot.revisionOf(service.id, previousRevision) ? previousRevision : version;
  const before = inPlaceOf(context, service, spec);
  const message = `revision ${service.revision} to ${revision}${before ? ', in place' : ''}`;
  const next: Service = {
    ...base,
    revision,
    rollout: isJob(spec)
      ? service.rollout
      : { ...begin(context, 'updating', message), gatesPassed: before ? spec.update.gates.length : 0 },
    job: updatedJob(service, spec, revision, context.now),
  };
  const changes: Change[] = [put(context, 'service', service.id, next)];
  if (revision === version) changes.push(putRevision(context, next, revision, before));
  return [...changes, ...record(context, service, next, { ...occasion, outcome: isJob(spec) ? 'completed' : '' })];
}

/** Creates the service, or updates the one of that name: what `apply` does for each service of a file. */
export function applyService(context: WishContext, spec: ServiceSpec): Change[] {
  assertVolumesKept(context.snapshot, spec);
  const existing = context.snapshot.serviceNamed(spec.project, spec.name);
  return existing ? updateService(context, existing.id, spec) : createService(context, spec);
}

/** Another number of replicas; a later rollback keeps it. Faults: `not-found`, `invalid` (global services have no number), `conflict`. */
export function scaleService(context: WishContext, id: ServiceId, replicas: number): Change[] {
  const service = standing(context, id);
  if (service.spec.mode === 'global') {
    throw new Fault('invalid', `service ${nameOf(service)} runs once on every node: it has no number of replicas`, {
      remedy: 'constrain its placement instead',
    });
  }
  if (service.spec.autoscale) {
    const { min, max } = service.spec.autoscale;
    throw new Fault('precondition', `service ${nameOf(service)} is autoscaled between ${min} and ${max}`, {
      remedy: 'change min and max of x-autoscale in the Compose file, or remove it there, and apply',
    });
  }
  if (isJob(service.spec)) {
    throw new Fault('invalid', `service ${nameOf(service)} is a job: it is not scaled`, {
      remedy: 'change deploy.replicas, and apply it again',
    });
  }
  if (!Number.isInteger(replicas) || replicas < 0) {
    throw new Fault('invalid', `replicas of ${nameOf(service)}: ${replicas} is not a whole number from 0`);
  }
  if (service.spec.failover === 'singleton' && replicas > 1) {
    throw new Fault('invalid', `service ${nameOf(service)} is a singleton: it has one task`, {
      remedy: 'remove x-failover: singleton from the Compose file',
    });
  }
  const { containerName } = service.spec.template.container;
  if (containerName !== '' && replicas > 1) {
    throw new Fault('invalid', `service ${nameOf(service)} is called ${containerName}, as only one task can be`, {
      remedy: 'remove container_name from the Compose file',
    });
  }
  const fixed = service.spec.template.networks.find(({ ipv4Address }) => ipv4Address !== '');
  if (fixed && replicas > 1) {
    throw new Fault(
      'invalid',
      `service ${nameOf(service)} has the fixed address ${fixed.ipv4Address}, for one task only`,
      {
        remedy: 'remove ipv4_address from the Compose file',
      },
    );
  }
  if (service.spec.replicas === replicas) return [];
  const { snapshot } = context;
  // One scaling after another is one version: an autoscaler must not push all else out of the history.
  const again = snapshot.versionOf(id, service.version)?.kind === 'scale';
  const next: Service = {
    ...service,
    spec: { ...service.spec, replicas },
    version: again ? service.version : nextVersion(snapshot, service),
    previous: service.previous && { ...service.previous, replicas },
    updatedAtMs: context.now,
  };
  const outcome = isUnproven(service) ? '' : 'completed';
  return [
    put(context, 'service', id, next),
    ...record(context, service, next, { kind: 'scale', why: `scaled to ${replicas}`, outcome }),
  ];
}

/** Its tasks are told to stop; it is gone when the last one is. Nothing where that is already under way. */
export function removeService(context: WishContext, id: ServiceId): Change[] {
  const service = existing(context, id);
  if (service.removing) return [];
  return [put(context, 'service', id, { ...service, removing: true, updatedAtMs: context.now })];
}

/**
 * Back to `previous`, or to version `to` as a whole. Faults: `not-found` (no such service, no such version), `invalid` (it is there
 * already), `precondition` (there is nothing to go back to; or it went back already: once more would be forward to what it left), `conflict`.
 */
export function rollbackService(context: WishContext, id: ServiceId, to?: number): Change[] {
  const service = standing(context, id);
  if (to === undefined) {
    refuseTwice(context, service);
    return rollback(context, service, 'asked for');
  }
  const version = versionToReturnTo(context.snapshot, service, to);
  const spec = specToReturnTo(context.snapshot, service, version);
  refuseWhatIsLost(context, service, spec);
  const occasion = { kind: 'rollback', why: `to version ${to}: asked for` } as const;
  // What was never rolled out to its end has to show what it is worth.
  if (version.outcome !== 'completed') return change(context, service, spec, occasion);
  return goBack(context, service, { spec, revision: version.revision }, occasion);
}

/** The changes of a rollback to `previous` for `why`, of a service that is known to stand. */
function rollback(context: WishContext, service: Service, why: string): Change[] {
  const { previous, previousVersion, previousRevision } = service;
  if (!previous) {
    const other = service.version > 1 ? 'was of this content in all its versions' : 'has no version before this one';
    throw new Fault('precondition', `service ${nameOf(service)} ${other}: there is nothing to go back to`, {
      remedy: `see gantry history ${service.spec.name}; with --to a version comes back as a whole, its replicas too`,
    });
  }
  refuseWhatIsLost(context, service, previous);
  const occasion = { kind: 'rollback', why: `to version ${previousVersion}: ${why}` } as const;
  return goBack(context, service, { spec: previous, revision: previousRevision }, occasion, why);
}

/** As `rollback`; a pause with both reasons where there is no way back. */
export function rollbackOrPause(context: WishContext, service: Service, why: string): Change[] {
  try {
    return rollback(context, service, why);
  } catch (error) {
    if (!isFault(error)) throw error;
    const message = `${why}; it cannot go back: ${error.message}`;
    const rollout: Rollout = {
      ...service.rollout,
      state: 'paused',
      resumes: 'updating',
      message,
      holdUntilMs: 0,
      finishedAtMs: context.now,
    };
    const paused = { ...service, rollout };
    return [put(context, 'service', service.id, paused), ...withOutcomeOf(context.snapshot, paused)];
  }
}

/** By the rollback policy, to tasks of `target.revision` where that still is what the spec asks for. */
function goBack(
  context: WishContext,
  service: Service,
  target: { readonly spec: ServiceSpec; readonly revision: number },
  occasion: Occasion,
  why = 'asked for',
): Change[] {
  const { snapshot } = context;
  const version = nextVersion(snapshot, service);
  const kept = snapshot.revisionOf(service.id, target.revision);
  const revision = kept && same(kept.template, target.spec.template) ? target.revision : version;
  const next: Service = {
    ...service,
    ...nothingBefore,
    spec: target.spec,
    autoscaled: target.spec.autoscale && service.autoscaled,
    version,
    revision,
    rolledBackFrom: service.version,
    updatedAtMs: context.now,
    rollout:
      revision === service.revision || isJob(target.spec)
        ? service.rollout
        : begin(context, 'rolling-back', `revision ${service.revision} to ${revision}: ${why}`),
    job: updatedJob(service, target.spec, revision, context.now),
  };
  const changes: Change[] = [put(context, 'service', service.id, next)];
  if (revision === version)
    changes.push(putRevision(context, next, revision, inPlaceOf(context, service, target.spec)));
  return [
    ...changes,
    ...record(context, service, next, { ...occasion, outcome: next.rollout === service.rollout ? 'completed' : '' }),
    ...withOutcome(snapshot, service, 'rolled-back', why),
  ];
}

function refuseTwice({ snapshot }: WishContext, { id, spec, version, rolledBackFrom }: Service): void {
  if (rolledBackFrom === 0) return;
  const from = snapshot.versionOf(id, rolledBackFrom);
  const why = from && from.message !== '' && from.message !== 'asked for' ? ` (${from.message})` : '';
  throw new Fault(
    'precondition',
    `service ${qualifiedName(spec.project, spec.name)} went back already, from version ${rolledBackFrom}${why} to ${version}`,
    {
      remedy: `name the version: gantry rollback ${spec.name} --to ${rolledBackFrom} goes forward again; others are in gantry history ${spec.name}`,
    },
  );
}

function refuseWhatIsLost({ snapshot }: WishContext, service: Service, spec: ServiceSpec): void {
  const { networks, documents } = spec.template;
  const gone = networks.find(({ network }) => !snapshot.get('network', network));
  if (gone) {
    throw new Fault('precondition', `network ${gone.network}, which service ${nameOf(service)} was on, is gone`, {
      remedy: `make it again: gantry network create ${gone.network}`,
    });
  }
  assertVolumesKept(snapshot, spec);
  const lost = documents.find((ref) => !snapshot.get('content', contentKey(ref)));
  if (lost) {
    throw new Fault('precondition', `${lost.type} ${lost.name}, which service ${nameOf(service)} used, is gone`, {
      remedy: 'apply a file that brings it',
    });
  }
}

/** New tasks of the same spec, by the service's update policy; of a job, another iteration in place of those under way. Faults: `not-found`, `conflict`. */
export function restartService(context: WishContext, id: ServiceId): Change[] {
  return renewed(context, standing(context, id), 'restart asked for');
}

/** A revision like the service's own, or another iteration of a job, for `why`: its tasks are replaced. */
export function renewed(context: WishContext, service: Service, why: string): Change[] {
  const { id } = service;
  const { snapshot } = context;
  if (isJob(service.spec)) {
    const { spec, revision, job = noJob } = service;
    const beginning = { spec, revision, now: context.now, dueAtMs: 0, message: why };
    return [put(context, 'service', id, { ...service, updatedAtMs: context.now, job: another(job, beginning) })];
  }
  const revision = nextVersion(snapshot, service);
  // An update under way that begins anew may still go back.
  const rollout = { ...begin(context, 'updating', why), restart: !isUnproven(service) };
  const next: Service = { ...service, version: revision, revision, updatedAtMs: context.now, rollout };
  const imageDigest = snapshot.revisionOf(id, service.revision)?.imageDigest ?? '';
  return [
    put(context, 'service', id, next),
    putRevision(context, next, revision, { imageDigest, origin: revision }),
    ...record(context, service, next, { kind: 'restart', why }),
  ];
}

/** What the operator wants of a node. Faults: `not-found`. */
export function setAvailability(context: WishContext, id: NodeId, availability: Node['availability']): Change[] {
  const node = existingNode(context, id);
  // Who activates it says that it is well.
  const flapping = availability === 'active' ? undefined : node.flapping;
  if (node.availability === availability && flapping === node.flapping) return [];
  return [put(context, 'node', id, { ...node, availability, flapping })];
}

/** Labels set and removed. Faults: `not-found`. */
export function setNodeLabels(
  context: WishContext,
  id: NodeId,
  set: Readonly<Record<string, string>>,
  remove: readonly string[] = [],
): Change[] {
  const node = existingNode(context, id);
  const labels: Record<string, string> = { ...node.labels, ...set };
  for (const key of remove) delete labels[key];
  return same(labels, node.labels) ? [] : [put(context, 'node', id, { ...node, labels })];
}

/**
 * The node leaves the cluster; its tasks are replaced elsewhere. Without `force` only a node that is down, or drained and
 * empty, may go, and none that has volumes. With it, volumes that no service mounts are forgotten; the others are
 * remembered, so that their services can say what they miss. Faults: `not-found`, `precondition`.
 */
export function removeNode(context: WishContext, id: NodeId, force = false): Change[] {
  const node = existingNode(context, id);
  const busy = [...context.snapshot.tasksOnNode(id)].filter(occupiesNode).length;
  if (!force && node.state !== 'down' && !(node.availability === 'drain' && busy === 0)) {
    throw new Fault(
      'precondition',
      `node ${node.name} is ${node.state} and has ${busy} ${busy === 1 ? 'task' : 'tasks'}`,
      {
        remedy: `drain it first: gantry drain ${node.name}, or use --force`,
      },
    );
  }
  const singleton = [...context.snapshot.tasksOnNode(id)].find((task) => task.singleton && occupiesNode(task));
  if (singleton) {
    const name = qualifiedName(singleton.project, singleton.serviceName);
    throw new Fault('precondition', `${name}, which must never run twice, may run on node ${node.name}`, {
      remedy:
        node.state === 'ready'
          ? `drain it first: gantry drain ${node.name}`
          : 'its lease is over some seconds after it was last heard: try again then',
    });
  }
  const volumes = [...context.snapshot.all('volume')].filter((volume) => volume.nodeId === id);
  if (!force && volumes.length > 0) {
    const names = volumes.map(({ name }) => name).sort();
    throw new Fault('precondition', `node ${node.name} has the data of volume ${names.join(', ')}`, {
      remedy: 'save it first; --force gives it up',
    });
  }
  // Also what only a revision on its way out, or back, mounts.
  const mounted = usersBy(context.snapshot, (template, mode) => pinnedVolumes(mode, template));
  const forgotten = volumes.filter(({ name }) => !mounted.has(name));
  return [...forgotten.map(({ name }) => remove(context, 'volume', name)), remove(context, 'node', id)];
}

export function standing(context: WishContext, id: ServiceId): Service {
  const service = existing(context, id);
  if (service.removing) throw beingRemoved(service);
  return service;
}

function existing({ snapshot }: WishContext, id: ServiceId): Service {
  const service = snapshot.service(id);
  if (!service) throw new Fault('not-found', `there is no service ${id}`);
  return service;
}

function existingNode({ snapshot }: WishContext, id: NodeId): Node {
  const node = snapshot.node(id);
  if (!node) throw new Fault('not-found', `there is no node ${id}`);
  return node;
}

function begin({ now }: WishContext, state: Rollout['state'], message: string): Rollout {
  return { ...idleRollout, state, message, startedAtMs: now, failuresSinceMs: now };
}

function record(context: WishContext, before: Service | undefined, next: Service, occasion: Occasion): Change[] {
  return recorded(context.snapshot, context.now, before, next, { by: context.by ?? '', ...occasion });
}

/** The revision whose processes go on under the new spec; undefined where it needs new ones. */
function inPlaceOf({ snapshot }: WishContext, service: Service, spec: ServiceSpec): Revision | undefined {
  // A job that changes begins anew.
  if (isJob(spec) || !changesInPlace(service.spec.template, spec.template)) return undefined;
  if (!same(hostPortsOf(service.spec), hostPortsOf(spec))) return undefined;
  return snapshot.revisionOf(service.id, service.revision);
}

/** `before`: what it goes on with; a tag is resolved anew where it begins with nothing. */
function putRevision(
  context: WishContext,
  service: Service,
  number: number,
  before: Pick<Revision, 'imageDigest' | 'origin'> = { imageDigest: '', origin: number },
): Change {
  const revision: Revision = {
    serviceId: service.id,
    number,
    template: service.spec.template,
    imageDigest: before.imageDigest,
    createdAtMs: context.now,
    origin: before.origin,
  };
  return put(context, 'revision', revisionKey(service.id, number), revision);
}

export function put<T extends Table>(context: WishContext, table: T, key: string, value: Tables[T]): Change {
  return { table, key, value, expect: context.snapshot.get(table, key)?.modRevision ?? 0 } as unknown as Change;
}

function remove(context: WishContext, table: Table, key: string): Change {
  return { table, key, value: undefined, expect: context.snapshot.get(table, key)?.modRevision ?? 0 } as Change;
}

export function nameOf(service: Service): string {
  return qualifiedName(service.spec.project, service.spec.name);
}

function beingRemoved(service: Service): Fault {
  return new Fault('conflict', `service ${nameOf(service)} is being removed`, {
    remedy: 'try again when its last task has stopped',
  });
}

function alreadyThere(service: Service): Fault {
  return new Fault('exists', `service ${nameOf(service)} is there already`);
}
