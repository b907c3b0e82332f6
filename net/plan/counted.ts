/** Whose calls the kernel counts, by the elements that it counts them in. */
import type { ServiceId } from '#proto/model/ids.ts';
import type { EndpointGroup } from './endpoint-groups.ts';
import type { FamilyName } from './family.ts';
import type { Firewall, NodePlan } from './node-plan.ts';
import { type Shards, valuesOf } from './shards.ts';

export interface Counted {
  readonly families: readonly FamilyName[];
  /** By `FAMILY SET KEY`. */
  readonly services: ReadonlyMap<string, ServiceId>;
}

const known = new WeakMap<Shards<EndpointGroup>, ReadonlyMap<string, ServiceId>>();

/** Looks at all endpoints once for each plan that has others. */
export function countedOf(plan: NodePlan | undefined): Counted {
  const firewalls = [plan?.firewall, plan?.firewall6].filter((firewall) => firewall !== undefined);
  const services = new Map<string, ServiceId>();
  for (const firewall of firewalls) for (const [key, service] of countedElements(firewall)) services.set(key, service);
  return { families: firewalls.map(({ family }) => family), services };
}

function countedElements({ family, endpoints }: Firewall): ReadonlyMap<string, ServiceId> {
  const before = known.get(endpoints);
  if (before) return before;
  const services = new Map<string, ServiceId>();
  for (const { endpoint, elements } of valuesOf(endpoints)) {
    if (!endpoint.counted) continue;
    for (const element of elements.keys())
      if (element.startsWith('counted')) services.set(`${family} ${element}`, endpoint.serviceId);
  }
  known.set(endpoints, services);
  return services;
}
