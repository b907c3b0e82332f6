/** Services for which connections wait where no task serves: which of them have none, whose a packet is, and whether its sender may call it. */
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import { containsAddress } from './cidr.ts';
import type { EndpointGroup } from './endpoint-groups.ts';
import type { Family, FamilyName } from './family.ts';
import type { Packet } from './held-packet.ts';
import { groupsOf, reachOf } from './isolation.ts';
import { furtherAddresses } from './local-tasks.ts';
import type { Planned } from './node-plan.ts';
import { lookUp, type Shards, valuesOf } from './shards.ts';

/** In one family: by VIP, and by key of a published port. */
interface Index {
  readonly vips: ReadonlyMap<string, Endpoint>;
  readonly ports: ReadonlyMap<string, Endpoint>;
  /** Those that have no task now. */
  readonly asleep: ReadonlySet<ServiceId>;
}

const known = new WeakMap<Shards<EndpointGroup>, Index>();

/** All endpoints are looked at, once for each plan that has others: only while somebody sleeps. */
function indexOf(endpoints: Shards<EndpointGroup>, family: Family): Index {
  const before = known.get(endpoints);
  if (before) return before;
  const vips = new Map<string, Endpoint>();
  const ports = new Map<string, Endpoint>();
  const asleep = new Set<ServiceId>();
  for (const { endpoint, owned, chains } of valuesOf(endpoints)) {
    if (endpoint.holdMs === 0) continue;
    const vip = endpoint.mode === 'vip' && endpoint.vip !== '' ? family.address(endpoint.vip) : undefined;
    if (vip !== undefined) vips.set(vip, endpoint);
    for (const { protocol, published } of owned) ports.set(`${protocol} ${published}`, endpoint);
    if (chains.some(isHolding)) asleep.add(endpoint.serviceId);
  }
  const index = { vips, ports, asleep };
  known.set(endpoints, index);
  return index;
}

function isHolding(chain: string): boolean {
  return chain === 'k0' || chain === 'p0';
}

/** Some service has no task, and connections to it wait. */
export function someAsleep({ balanced }: Planned): boolean {
  return [...balanced.values()].some(({ chains }) => [...chains.keys()].some(isHolding));
}

/** Where the packet is for a service that connections wait for: which, and whether they do now. */
export function calledBy(
  packet: Packet,
  planned: Planned,
): { readonly endpoint: Endpoint; readonly asleep: boolean; readonly allowed: boolean } | undefined {
  const family = planned.families.find(({ name }) => name === packet.family);
  const balanced = planned.balanced.get(packet.family);
  if (!family || !balanced) return undefined;
  const index = indexOf(balanced.endpoints, family);
  const byVip = index.vips.get(packet.destination);
  const isVip =
    byVip !== undefined || (family.name === 'ip' && containsAddress(planned.input.vipNetwork, packet.destination));
  const endpoint = isVip ? byVip : index.ports.get(`${packet.protocol} ${packet.destinationPort}`);
  if (!endpoint) return undefined;
  // Whoever comes by a published port may.
  const allowed = !byVip || maySend(packet.source, endpoint, family, planned);
  return { endpoint, asleep: index.asleep.has(endpoint.serviceId), allowed };
}

/** True where connections to the service do not wait: it has a task, or nobody is to wait for one any more. */
export function isAwake(id: ServiceId, family: FamilyName, { balanced }: Planned): boolean {
  const endpoints = balanced.get(family)?.endpoints;
  const group = endpoints && lookUp(endpoints, id);
  return !group?.chains.some(isHolding);
}

/** What is sent again does not pass the rules that say so of what tasks of this node send (`senders`). */
function maySend(source: string, endpoint: Endpoint, family: Family, planned: Planned): boolean {
  const { networks, guarded, input, balanced } = planned;
  if (!networks.isolated) return true;
  const task = input.attachments.find(
    (one) =>
      family.address(one.address) === source ||
      (family.name === 'ip' && furtherAddresses(one, networks).some(({ address }) => address === source)),
  );
  if (!task) return true;
  const endpoints = balanced.get('ip')?.endpoints;
  const own = endpoints && lookUp(endpoints, task.serviceId)?.endpoint;
  const { groups } = reachOf(task, own, guarded, networks);
  return groupsOf(endpoint, networks).some((group) => groups.includes(group));
}
