/** `depends_on` with `restart: true`: an operation that renews a service's tasks renews those of its dependents, in the same commit. */
import type { Change } from '#control-plane/store/records.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import { renewed, type WishContext } from './service-changes.ts';

export interface Renewal {
  /** Those of the wish, and what they bring about. */
  readonly changes: readonly Change[];
  /** Services that are renewed for the sake of others, each with the name of the one it depends on. */
  readonly dependents: readonly { readonly service: Service; readonly because: string }[];
}

/** Goes on from dependent to dependent; who gets a new revision by the wish itself needs no second one. */
export function renewDependents(context: WishContext, wish: readonly Change[]): Renewal {
  const { snapshot } = context;
  const changes = [...wish];
  /** Services of the wish as they will be. */
  const next = new Map<ServiceId, Service>();
  for (const change of wish) if (change.table === 'service' && change.value) next.set(change.value.id, change.value);
  const isRenewed = (service: Service) => {
    const before = snapshot.service(service.id);
    return before !== undefined && before.revision !== service.revision && !service.removing;
  };
  const dependents: { service: Service; because: string }[] = [];
  const way = [...next.values()].filter(isRenewed);
  const seen = new Set(way.map(({ id }) => id));
  for (let cause = way.shift(); cause; cause = way.shift()) {
    const { project, name } = cause.spec;
    const candidates = new Map([...next.values(), ...snapshot.dependentsOf(project, name)].map(({ id }) => [id, id]));
    for (const id of candidates.keys()) {
      const service = next.get(id) ?? snapshot.service(id)!;
      const wants = service.spec.dependsOn.some((dependency) => dependency.restart && dependency.service === name);
      const isNew = snapshot.service(id) === undefined;
      if (!wants || isNew || service.removing || service.spec.project !== project || seen.has(id)) continue;
      seen.add(id);
      const edits = renewed(context, service, `it depends on ${name}`);
      const kept = changes.findIndex((change) => change.table === 'service' && change.key === id);
      if (kept >= 0) changes.splice(kept, 1);
      changes.push(...edits);
      const after = edits.find((change) => change.table === 'service')!.value as Service;
      next.set(id, after);
      dependents.push({ service: after, because: name });
      way.push(after);
    }
  }
  return { changes, dependents };
}
