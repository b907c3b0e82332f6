/** What a wish of the operator changes in the store: pure, so that `plan` and `apply` cannot differ. */

import type { Change, Table, Tables } from '#control-plane/store/records.ts';
import { revisionKey, type Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { contentKey } from '#proto/model/document.ts';
import { type NodeId, qualifiedName, type ServiceId, serviceId } from '#proto/model/ids.ts';
import { isJob, noJob } from '#proto/model/job.ts';
import type { Node } from '#proto/model/node.ts';
import { idleRollout, type Revision, type Rollout, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { occupiesNode } from '#proto/model/task.ts';
import { pinnedVolumes } from '#proto/model/volume.ts';
import { changesInPlace } from './in-place.ts';
import { another, newJob, updatedJob } from './iterations.ts';
import { same } from './same.ts';
import { assertVolumesKept } from './volume-changes.ts';

/** What every wish is decided on: one snapshot, the wall clock in ms, and a source of fresh ids. */
export interface WishContext {
  readonly snapshot: Snapshot;
  readonly now: number;
  readonly newId: () => string;
}

/** A service that is not there yet, and its first revision. Faults: `exists`, `conflict` while one of that name is being removed. */
export function createService(context: WishContext, spec: ServiceSpec): Change[] {
  const existing = context.snapshot.serviceNamed(spec.project, spec.name);
  if (existing) throw existing.removing ? beingRemoved(existing) : alreadyThere(existing);
  const id = serviceId(context.newId());
  const service: Service = {
    id,
    spec,
    revision: 1,
    vip: '',
    createdAtMs: context.now,
    updatedAtMs: context.now,
    rollout: idleRollout,
    previous: undefined,
    previousRevision: 0,
    removing: false,
    job: newJob(spec, context.now),
    autoscaled: undefined,
  };
  return [put(context, 'service', id, service), putRevision(context, service, 1)];
}

/**
 * The service with a new spec. A changed template becomes a new revision and begins a rollout; the spec before becomes
 * `previous`. No change at all gives no changes. Faults: `not-found`, `invalid` (another name or mode), `conflict` (being removed).
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
  if (same(service.spec, spec)) return [];
  const autoscaled = spec.autoscale && service.autoscaled;
  const base = { ...service, spec, autoscaled, updatedAtMs: context.now, previous: service.spec };
  if (same(service.spec.template, spec.template)) {
    const job = updatedJob(service, spec, service.revision, context.now);
    return [put(context, 'service', id, { ...base, previousRevision: service.revision, job })];
  }
  const revision = nextRevision(context, id);
  const before = inPlaceOf(context, service, spec);
  const next: Service = {
    ...base,
    revision,
    previousRevision: service.revision,
    job: updatedJob(service, spec, revision, context.now),
    rollout: isJob(spec)
      ? service.rollout
      : begin(context, 'updating', `revision ${service.revision} to ${revision}${before ? ', in place' : ''}`),
  };
  return [put(context, 'service', id, next), putRevision(context, next, revision, before)];
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
  return [
    put(context, 'service', id, {
      ...service,
      spec: { ...service.spec, replicas },
      previous: service.previous && { ...service.previous, replicas },
      updatedAtMs: context.now,
    }),
  ];
}

/** Its tasks are told to stop; it is gone when the last one is. Nothing where that is already under way. */
export function removeService(context: WishContext, id: ServiceId): Change[] {
  const service = existing(context, id);
  if (service.removing) return [];
  return [put(context, 'service', id, { ...service, removing: true, updatedAtMs: context.now })];
}

/** Back to the spec before; asking twice is back to where it was. Faults: `not-found`, `precondition` (there is none), `conflict`. */
export function rollbackService(context: WishContext, id: ServiceId): Change[] {
  return rollback(context, standing(context, id), 'asked for');
}

/** The changes of a rollback for `why`, of a service that is known to stand. */
export function rollback(context: WishContext, service: Service, why: string): Change[] {
  const { previous } = service;
  if (!previous) {
    throw new Fault('precondition', `service ${nameOf(service)} has no spec before this one to go back to`);
  }
  const gone = previous.template.networks.find(({ network }) => !context.snapshot.get('network', network));
  if (gone) {
    throw new Fault('precondition', `network ${gone.network}, which service ${nameOf(service)} was on, is gone`, {
      remedy: `make it again: gantry network create ${gone.network}`,
    });
  }
  assertVolumesKept(context.snapshot, previous);
  const lost = previous.template.documents.find((ref) => !context.snapshot.get('content', contentKey(ref)));
  if (lost) {
    throw new Fault('precondition', `${lost.type} ${lost.name}, which service ${nameOf(service)} used, is gone`, {
      remedy: 'apply a file that brings it',
    });
  }
  const old = context.snapshot.revisionOf(service.id, service.previousRevision);
  const reuse = old !== undefined && same(old.template, previous.template);
  const revision = reuse ? service.previousRevision : nextRevision(context, service.id);
  const next: Service = {
    ...service,
    spec: previous,
    revision,
    previous: service.spec,
    previousRevision: service.revision,
    updatedAtMs: context.now,
    rollout:
      revision === service.revision || isJob(previous)
        ? service.rollout
        : begin(context, 'rolling-back', `revision ${service.revision} to ${revision}: ${why}`),
    job: updatedJob(service, previous, revision, context.now),
  };
  const changes: Change[] = [put(context, 'service', service.id, next)];
  if (!reuse) changes.push(putRevision(context, next, revision, inPlaceOf(context, service, previous)));
  return changes;
}

/** New tasks of the same template, by the service's update policy; of a job, another iteration in place of those under way. Faults: `not-found`, `conflict`. */
export function restartService(context: WishContext, id: ServiceId): Change[] {
  return renewed(context, standing(context, id), 'restart asked for');
}

/** A revision like the service's own, or another iteration of a job, for `why`: its tasks are replaced. */
export function renewed(context: WishContext, service: Service, why: string): Change[] {
  const { id } = service;
  if (isJob(service.spec)) {
    const { spec, revision, job = noJob } = service;
    const beginning = { spec, revision, now: context.now, dueAtMs: 0, message: why };
    return [put(context, 'service', id, { ...service, updatedAtMs: context.now, job: another(job, beginning) })];
  }
  const revision = nextRevision(context, id);
  const next: Service = {
    ...service,
    revision,
    updatedAtMs: context.now,
    rollout: begin(context, 'updating', why),
  };
  const imageDigest = context.snapshot.revisionOf(id, service.revision)?.imageDigest ?? '';
  return [put(context, 'service', id, next), putRevision(context, next, revision, { imageDigest, origin: revision })];
}

/** What the operator wants of a node. Faults: `not-found`. */
export function setAvailability(context: WishContext, id: NodeId, availability: Node['availability']): Change[] {
  const node = existingNode(context, id);
  return node.availability === availability ? [] : [put(context, 'node', id, { ...node, availability })];
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
    throw new Fault('precondition', `node ${node.name} is ${node.state} and has ${busy} tasks`, {
      remedy: `drain it first: gantry drain ${node.name}, or use --force`,
    });
  }
  const volumes = [...context.snapshot.all('volume')].filter((volume) => volume.nodeId === id);
  if (!force && volumes.length > 0) {
    const names = volumes.map(({ name }) => name).sort();
    throw new Fault('precondition', `node ${node.name} has the data of volume ${names.join(', ')}`, {
      remedy: 'save it first; --force gives it up',
    });
  }
  const mounted = new Set(
    [...context.snapshot.all('service')].flatMap(({ spec }) => pinnedVolumes(spec.mode, spec.template)),
  );
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

function nextRevision({ snapshot }: WishContext, id: ServiceId): number {
  let highest = snapshot.service(id)?.revision ?? 0;
  for (const { number } of snapshot.revisionsOfService(id)) highest = Math.max(highest, number);
  return highest + 1;
}

function begin({ now }: WishContext, state: Rollout['state'], message: string): Rollout {
  return { state, message, startedAtMs: now, finishedAtMs: 0 };
}

/** The revision whose processes go on under the new spec; undefined where it needs new ones. */
function inPlaceOf({ snapshot }: WishContext, service: Service, spec: ServiceSpec): Revision | undefined {
  // A job that changes begins anew.
  if (isJob(spec) || !changesInPlace(service.spec.template, spec.template)) return undefined;
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

function put<T extends Table>(context: WishContext, table: T, key: string, value: Tables[T]): Change {
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
