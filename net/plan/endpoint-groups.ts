/** The elements of all services, in groups: a change of one costs one, however many there are. */
import type { Endpoint } from '#proto/model/assignment.ts';
import type { Port } from '#proto/model/service.ts';
import { balanceEndpoint, type Group } from './balance.ts';
import type { Family } from './family.ts';
import { type GroupNumber, groupsOf, membersOf, type Networks } from './isolation.ts';
import { changed, lookUp, type Shards, shardsOf, valuesOf } from './shards.ts';

/** An endpoint's elements, and what they were made of. */
export interface EndpointGroup extends Group {
  readonly endpoint: Endpoint;
  /** The ports of the endpoint that are its to publish. */
  readonly owned: readonly Port[];
  /** The groups that its addresses are published into. */
  readonly publishes: readonly GroupNumber[];
  /** The elements that say so; others may say the same. */
  readonly members: readonly string[];
}

export interface Balanced {
  /** By service id. */
  readonly endpoints: Shards<EndpointGroup>;
  /** How many endpoints' verdicts lead to each dispatch chain. */
  readonly chains: ReadonlyMap<string, number>;
  /** How many endpoints have each member: tasks that share a namespace have one address. */
  readonly members: Shards<number>;
}

/** What the groups depend on beside their endpoints. */
export interface Policy {
  readonly networks: Networks;
  /** The groups that some local task reaches: the others' members are nobody's to look up. */
  readonly reached: ReadonlySet<GroupNumber>;
}

type OwnedBy = (endpoint: Endpoint) => readonly Port[];

export function balanceEndpoints(
  endpoints: readonly Endpoint[],
  ownedBy: OwnedBy,
  policy: Policy,
  family: Family,
): Balanced {
  const groups: [string, EndpointGroup][] = [];
  const chains = new Map<string, number>();
  const members = new Map<string, number>();
  for (const endpoint of endpoints) {
    const group = groupOf(endpoint, ownedBy, policy, family);
    if (!group) continue;
    groups.push([endpoint.serviceId, group]);
    count(chains, group.chains, 1);
    count(members, group.members, 1);
  }
  return { endpoints: shardsOf(groups), chains, members: shardsOf(members) };
}

/** What balanceEndpoints would give, from what it gave `before` by the policy of `then`, where the endpoints of `changes` are other ones now. */
export function followBalance(
  before: Balanced,
  then: Policy,
  changes: ReadonlyMap<string, Endpoint | undefined>,
  ownedBy: OwnedBy,
  policy: Policy,
  family: Family,
): Balanced {
  const chains = new Map(before.chains);
  const members = new Map<string, number>();
  const groups: [string, EndpointGroup | undefined][] = [];
  const put = (id: string, old: EndpointGroup | undefined, endpoint: Endpoint | undefined) => {
    const group = endpoint && groupOf(endpoint, ownedBy, policy, family);
    if (!group && !old) return;
    for (const [one, by] of [
      [old, -1],
      [group, 1],
    ] as const) {
      count(chains, one?.chains ?? [], by);
      count(members, one?.members ?? [], by);
    }
    groups.push([id, group]);
  };
  for (const [id, now] of changes) put(id, lookUp(before.endpoints, id), now);
  for (const group of regrouped(before.endpoints, then, policy)) {
    const { endpoint } = group;
    if (!changes.has(endpoint.serviceId)) put(endpoint.serviceId, group, endpoint);
  }
  const totals = [...members].map(([member, by]) => {
    const total = (lookUp(before.members, member) ?? 0) + by;
    return [member, total === 0 ? undefined : total] as const;
  });
  return { endpoints: changed(before.endpoints, groups), chains, members: changed(before.members, totals) };
}

/** The groups whose members are others by the new policy. */
function* regrouped(endpoints: Shards<EndpointGroup>, then: Policy, policy: Policy): Generator<EndpointGroup> {
  const turned = new Set<GroupNumber>();
  if (then.reached !== policy.reached) {
    for (const group of policy.reached) if (!then.reached.has(group)) turned.add(group);
    for (const group of then.reached) if (!policy.reached.has(group)) turned.add(group);
  }
  const renumbered = then.networks !== policy.networks;
  if (!renumbered && turned.size === 0) return;
  for (const group of valuesOf(endpoints)) {
    const { publishes } = group;
    const moved = renumbered && groupsOf(group.endpoint, policy.networks).join() !== publishes.join();
    if (moved || publishes.some((number) => turned.has(number))) yield group;
  }
}

function groupOf(endpoint: Endpoint, ownedBy: OwnedBy, policy: Policy, family: Family): EndpointGroup | undefined {
  if (family.name === 'ip6' && !endpoint.ipv6) return undefined;
  const owned = ownedBy(endpoint);
  const { elements, chains } = balanceEndpoint(endpoint, owned, family);
  const publishes = groupsOf(endpoint, policy.networks);
  const members = membersOf(publishes, addressesOf(endpoint, policy.networks, family), policy.reached);
  return { elements, chains, endpoint, owned, publishes, members };
}

/** All addresses of its tasks, also of those that do not serve: they are reached by name, and finish what they do. */
function addressesOf(endpoint: Endpoint, { routed }: Networks, family: Family): readonly string[] {
  const addresses = new Set<string>();
  for (const backend of endpoint.backends) {
    const primary = backend.address === '' ? undefined : family.address(backend.address);
    if (primary !== undefined) addresses.add(primary);
    if (family.name !== 'ip') continue;
    for (const { network, address } of backend.addresses) if (routed.has(network)) addresses.add(address);
  }
  return [...addresses];
}

function count(totals: Map<string, number>, names: readonly string[], by: number): void {
  for (const name of names) {
    const total = (totals.get(name) ?? 0) + by;
    if (total === 0) totals.delete(name);
    else totals.set(name, total);
  }
}
