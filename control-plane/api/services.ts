/** Services: scale, restart, rollback, remove, and their rollouts; several at once are one transaction. `by`: the operator who asks. */
import { renewDependents } from '#control-plane/reconcilers/dependents.ts';
import { pauseRollout, resumeRollout } from '#control-plane/reconcilers/rollout-changes.ts';
import {
  restartService,
  rollbackService,
  scaleService,
  type WishContext,
} from '#control-plane/reconcilers/service-changes.ts';
import { discardServices } from '#control-plane/reconcilers/trash.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ChangeResponse, RollbackRequest, ScaleRequest, ServiceRequest } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import { limits } from '#proto/model/validate.ts';
import { findService, nameOfService } from './names.ts';
import { commitWish, type OperatorParts } from './parts.ts';

export function scale(parts: OperatorParts, request: ScaleRequest, by = ''): Promise<ChangeResponse> {
  const wanted = Object.entries(request.replicas);
  for (const [name, replicas] of wanted) checkReplicas(name, replicas);
  const byName = new Map(wanted);
  return change(
    parts,
    [...byName.keys()],
    (context, service, name) => scaleService(context, service.id, byName.get(name)!),
    'scaled',
    by,
  );
}

/** Fault `invalid`: more than any service may have. */
export function checkReplicas(name: string, replicas: number): void {
  if (replicas > limits.replicas)
    throw new Fault('invalid', `${name}: ${replicas} replicas are not allowed`, {
      remedy: `use 0 to ${limits.replicas}`,
    });
}

export function restart(parts: OperatorParts, request: ServiceRequest, by = ''): Promise<ChangeResponse> {
  return change(parts, request.services, (context, { id }) => restartService(context, id), 'restarting', by);
}

export async function rollback(parts: OperatorParts, request: RollbackRequest, by = ''): Promise<ChangeResponse> {
  const { services, toVersion } = request;
  const to = toVersion === 0 ? undefined : toVersion;
  if (to !== undefined && services.length > 1)
    throw new Fault('invalid', 'version numbers are those of one service', { remedy: 'name one service with --to' });
  return change(parts, services, (context, { id }) => rollbackService(context, id, to), 'rolling back', by);
}

export function pause(parts: OperatorParts, request: ServiceRequest, by = ''): Promise<ChangeResponse> {
  return change(parts, request.services, (context, { id }) => pauseRollout(context, id), 'paused the rollout of', by);
}

export function resume(parts: OperatorParts, request: ServiceRequest, by = ''): Promise<ChangeResponse> {
  return change(parts, request.services, (context, { id }) => resumeRollout(context, id), 'resumed the rollout of', by);
}

/** To the trash, all of them as one removal. Faults: `not-found`, `invalid` (ambiguous), `precondition` (protected). */
export async function remove(parts: OperatorParts, request: ServiceRequest): Promise<ChangeResponse> {
  const services = new Map<ServiceId, Service>();
  const revision = await commitWish(parts, (context) => {
    services.clear();
    for (const service of named(context, request.services))
      for (const one of [service, ...stepsBefore(context.snapshot, service)]) services.set(one.id, one);
    return discardServices(context, [...services.values()], request);
  });
  return said(revision, services, 'removing');
}

/** The jobs that are the steps of its `pre_start`: they go, and come back, with it. */
function stepsBefore(snapshot: Snapshot, { spec: { project, name } }: Service): readonly Service[] {
  return [...snapshot.all('service')].filter(({ spec }) => spec.project === project && spec.preStartOf === name);
}

/** One transaction for all of them; `word` says what is done. */
export async function change(
  parts: OperatorParts,
  names: readonly string[],
  decide: (context: WishContext, service: Service, name: string) => readonly Change[],
  word: string,
  by = '',
): Promise<ChangeResponse> {
  const services = new Map<ServiceId, Service>();
  const decideAll = (context: WishContext) => {
    services.clear();
    const found = named(context, names);
    const changes = names.flatMap((name, index) => {
      const service = found[index]!;
      if (services.has(service.id)) return [];
      services.set(service.id, service);
      return decide(context, service, name);
    });
    const renewal = renewDependents(context, changes);
    for (const { service } of renewal.dependents) services.set(service.id, service);
    return renewal.changes;
  };
  const revision = await commitWish(parts, decideAll, by);
  return said(revision, services, word);
}

/** Faults: `not-found`, `invalid` (none, or ambiguous). */
function named({ snapshot }: WishContext, names: readonly string[]): readonly Service[] {
  if (names.length === 0)
    throw new Fault('invalid', 'no service was named', { remedy: 'name one: see gantry services' });
  return names.map((name) => findService(snapshot, name));
}

function said(revision: number, services: ReadonlyMap<ServiceId, Service>, word: string): ChangeResponse {
  const names = [...services.values()].map(nameOfService);
  const what = names.join(', ');
  return {
    revision,
    serviceIds: [...services.keys()],
    names,
    message: revision > 0 ? `${word} ${what}` : `${what}: nothing to change`,
  };
}
