/** Who may reach whom: the groups that addresses are published into, and those that each local task reaches. Pure. */
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import { formatCidr, parseCidr, tryAddress } from './cidr.ts';

/**
 * A group of addresses, by number: a network's own number, or the number of a service's VIP for those who alone may call
 * it. They never meet: networks are counted from 1, and no VIP is that low.
 */
export type GroupNumber = number;

/** The networks of the cluster as the rules know them. */
export interface Networks {
  /** Those that Gantry routes, by name. */
  readonly routed: ReadonlyMap<string, ClusterNetwork>;
  /** Those that are beside a link of the host (macvlan), by name. */
  readonly lans: ReadonlyMap<string, ClusterNetwork>;
  /** Ranges of further addresses, of all that are routed. */
  readonly subnets: readonly string[];
  /** Someone of theirs has IPv6. */
  readonly ipv6: boolean;
  /** False for a control plane that knows of no networks: nothing is isolated then. */
  readonly isolated: boolean;
}

export function networksOf(networks: readonly ClusterNetwork[]): Networks {
  const routed = networks.filter(({ spec }) => spec.driver === 'cluster');
  return {
    routed: new Map(routed.map((network) => [network.spec.name, network])),
    lans: new Map(networks.flatMap((one) => (one.spec.driver === 'macvlan' ? [[one.spec.name, one]] : []))),
    subnets: routed.flatMap(({ spec }) => spec.subnets.map(({ subnet }) => formatCidr(parseCidr(subnet)))).sort(),
    ipv6: routed.some(({ spec }) => spec.ipv6),
    isolated: networks.length > 0,
  };
}

/**
 * The groups that a service's addresses are published into: its own where it says who may call it, else its networks'.
 * None: nobody reaches it but by its published ports.
 */
export function groupsOf(
  endpoint: Pick<Endpoint, 'allowFrom' | 'vip' | 'networks'>,
  networks: Networks,
): readonly GroupNumber[] {
  if (endpoint.allowFrom) {
    const own = tryAddress(endpoint.vip);
    return own === undefined ? [] : [own];
  }
  return numbersOf(
    endpoint.networks.map(({ network }) => network),
    networks,
  );
}

/** What a local task may send to. */
export interface Reach {
  /** In order. */
  readonly groups: readonly GroupNumber[];
  /** It is on internal networks alone: nothing outside of the cluster. */
  readonly internal: boolean;
}

/**
 * What a task of `service` (undefined: of one that is no endpoint) on `networks` may send to. `guarded`: the services that
 * say who may call them.
 */
export function reachOf(
  task: { readonly serviceId: string; readonly networks: readonly string[] },
  service: Pick<Endpoint, 'project' | 'name'> | undefined,
  guarded: readonly Endpoint[],
  networks: Networks,
): Reach {
  const groups = new Set(numbersOf(task.networks, networks));
  const own = new Set(task.networks.filter((name) => networks.routed.has(name)));
  for (const target of guarded) {
    const vip = tryAddress(target.vip);
    if (vip === undefined || !target.networks.some(({ network }) => own.has(network))) continue;
    if (target.serviceId === task.serviceId || admits(target, service)) groups.add(vip);
  }
  return {
    groups: [...groups].sort((a, b) => a - b),
    internal: own.size > 0 && [...own].every((name) => networks.routed.get(name)?.spec.internal),
  };
}

/** True where `target` names the service among those that may call it. */
function admits(target: Endpoint, service: Pick<Endpoint, 'project' | 'name'> | undefined): boolean {
  return (target.allowFrom?.services ?? []).some((rule) => {
    if (rule === '*') return true;
    if (!service) return false;
    return rule.includes('/')
      ? rule === `${service.project}/${service.name}`
      : rule === service.name && target.project === service.project;
  });
}

function numbersOf(names: readonly string[], { routed }: Networks): readonly GroupNumber[] {
  const numbers = names.flatMap((name) => routed.get(name)?.number ?? []);
  return [...new Set(numbers)].sort((a, b) => a - b);
}

/** The elements that put addresses into those of `groups` that some local task reaches. */
export function membersOf(
  groups: readonly GroupNumber[],
  addresses: readonly string[],
  reached: ReadonlySet<GroupNumber>,
): readonly string[] {
  return groups.flatMap((group) =>
    reached.has(group) ? addresses.map((address) => `members ${group} . ${address}`) : [],
  );
}

/** nft's names end here; those of more groups are a digest. */
const longestName = 100;

/** The name of the chain of all who reach the same: what it holds follows from the name, whoever made it. */
export function reachChainName({ groups, internal }: Reach): string {
  const name = [internal ? 'mi' : 'm', ...groups.map((group) => group.toString(36))].join('_');
  return name.length <= longestName ? name : `${internal ? 'mi' : 'm'}__${digest(name)}`;
}

/** 64 bits of FNV-1a, twice over with different beginnings: two lists of groups of one name do not occur. */
function digest(text: string): string {
  const hash = (seed: bigint) => {
    let value = seed;
    for (let index = 0; index < text.length; index++) {
      value = ((value ^ BigInt(text.charCodeAt(index))) * 0x100000001b3n) & 0xffffffffffffffffn;
    }
    return value.toString(36);
  };
  return `${hash(0xcbf29ce484222325n)}_${hash(0x84222325cbf29cen)}`;
}
