/** What the names of one revision are answered from: an index that follows a change without being made anew. */
import type { NetworkWanted } from '#net/network.ts';
import { gatewayOf } from '#net/plan/cidr.ts';
import { embeddedAddress } from '#net/plan/cidr6.ts';
import { changesOf } from '#net/plan/node-plan.ts';
import { changed, lookUp, type Shards, shardsOf } from '#net/plan/shards.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ClusterNetwork, Link, NetworkSpec } from '#proto/model/network.ts';

/** What a view is made of; a NetworkWanted fits. */
export type DnsInput = Pick<
  NetworkWanted,
  'domain' | 'network' | 'vipNetwork' | 'network6' | 'address' | 'subnet' | 'endpoints' | 'networks' | 'attachments'
>;

/** Who asks, and so what is seen. */
export interface Asker {
  readonly project: string;
  /** Names of the networks it is on; undefined: the node itself, which sees all. */
  readonly networks: readonly string[] | undefined;
  readonly links: readonly Link[];
  /** Name servers of its own for names that are not the cluster's. */
  readonly dns: readonly string[];
}

/** One revision, indexed for questions. */
export interface DnsView {
  readonly domain: string;
  readonly network: string;
  readonly vipNetwork: string;
  readonly network6: string;
  readonly networks: ReadonlyMap<string, NetworkSpec>;
  readonly networkList: readonly ClusterNetwork[];
  /** The tasks of this node, and the node, by the addresses they ask from. */
  readonly askers: ReadonlyMap<string, Asker>;
  readonly endpoints: readonly Endpoint[];
  /** By `keysOf`; each list in the order of service ids. */
  readonly index: Shards<readonly Endpoint[]>;
}

/** The view of a revision. With `previous`, only the endpoints that are other objects than then are looked at; the result is the same. */
export function dnsView(wanted: DnsInput, previous?: DnsView): DnsView {
  const { network, vipNetwork, network6, endpoints, networks } = wanted;
  return {
    domain: wanted.domain.toLowerCase(),
    network,
    vipNetwork,
    network6,
    networkList: networks,
    networks: previous && sameItems(previous.networkList, networks) ? previous.networks : specsOf(networks),
    askers: askersOf(wanted),
    endpoints,
    index: previous ? followIndex(previous, endpoints) : indexOf(endpoints),
  };
}

/** The services called so on a network. */
export function calledOn(view: DnsView, network: string, name: string): readonly Endpoint[] {
  return lookUp(view.index, `on ${network} ${name}`) ?? none;
}

/** The services called so on any network. */
export function called(view: DnsView, name: string): readonly Endpoint[] {
  return lookUp(view.index, `name ${name}`) ?? none;
}

/** The services that an IPv4 address stands for, or is a task's of. */
export function havingAddress(view: DnsView, address: string): readonly Endpoint[] {
  return lookUp(view.index, `at ${address}`) ?? none;
}

/** Who asks from an address, IPv4 or IPv6; undefined where it is nobody's. */
export function askerAt(view: DnsView, source: string): Asker | undefined {
  const address = source.includes(':') ? embeddedAddress(view.network6, source) : source;
  if (address === undefined) return undefined;
  const local = view.askers.get(address);
  if (local) return local;
  // A task of another node.
  const owner = havingAddress(view, address).find((endpoint) => endpoint.networks.length > 0);
  if (!owner || owner.vip === address) return undefined;
  const networks = owner.networks.map((membership) => membership.network);
  return { project: owner.project, networks, links: [], dns: [] };
}

const none: readonly Endpoint[] = [];

function sameItems<T>(a: readonly T[], b: readonly T[]): boolean {
  return a.length === b.length && a.every((item, index) => item === b[index]);
}

function specsOf(networks: readonly ClusterNetwork[]): ReadonlyMap<string, NetworkSpec> {
  return new Map(networks.map(({ spec }) => [spec.name, spec]));
}

function askersOf(wanted: DnsInput): ReadonlyMap<string, Asker> {
  const askers = new Map<string, Asker>();
  for (const { address, addresses, project, networks, links, dns } of wanted.attachments) {
    const asker = { project, networks, links, dns };
    for (const own of [address, ...addresses.map((item) => item.address)]) askers.set(own, asker);
  }
  const node: Asker = { project: '', networks: undefined, links: [], dns: [] };
  for (const own of [wanted.address, gatewayOf(wanted.subnet)]) askers.set(own, node);
  return askers;
}

function indexOf(endpoints: readonly Endpoint[]): Shards<readonly Endpoint[]> {
  const lists = new Map<string, Endpoint[]>();
  for (const endpoint of [...endpoints].sort(byId)) {
    for (const key of keysOf(endpoint)) {
      const list = lists.get(key);
      if (list) list.push(endpoint);
      else lists.set(key, [endpoint]);
    }
  }
  return shardsOf(lists, shardCount);
}

function followIndex(previous: DnsView, endpoints: readonly Endpoint[]): Shards<readonly Endpoint[]> {
  const { index } = previous;
  const lists = new Map<string, readonly Endpoint[]>();
  const edit = (key: string, change: (list: readonly Endpoint[]) => readonly Endpoint[]) =>
    lists.set(key, change(lists.get(key) ?? lookUp(index, key) ?? none));
  for (const [id, now] of changesOf(endpoints, previous.endpoints)) {
    for (const before of lookUp(index, `id ${id}`) ?? none) {
      for (const key of keysOf(before)) edit(key, (list) => list.filter((item) => item !== before));
    }
    if (now) for (const key of keysOf(now)) edit(key, (list) => [...list, now].sort(byId));
  }
  return changed(
    index,
    [...lists].map(([key, list]) => [key, list.length > 0 ? list : undefined] as const),
  );
}

/** A service has some eight keys, each in another shard to be copied. */
const shardCount = 2048;

/** Under what a service is found. */
function keysOf(endpoint: Endpoint): ReadonlySet<string> {
  const keys = new Set([`id ${endpoint.serviceId}`]);
  const everywhere = [endpoint.name, ...endpoint.aliases].map((text) => text.toLowerCase());
  for (const name of everywhere) keys.add(`name ${name}`);
  for (const { network, aliases } of endpoint.networks) {
    for (const name of everywhere) keys.add(`on ${network} ${name}`);
    for (const alias of aliases) {
      keys.add(`on ${network} ${alias.toLowerCase()}`);
      keys.add(`name ${alias.toLowerCase()}`);
    }
  }
  if (endpoint.vip !== '') keys.add(`at ${endpoint.vip}`);
  for (const { address, addresses } of endpoint.backends) {
    for (const one of [address, ...addresses.map((item) => item.address)]) if (one !== '') keys.add(`at ${one}`);
  }
  return keys;
}

function byId(a: Endpoint, b: Endpoint): number {
  return a.serviceId < b.serviceId ? -1 : a.serviceId > b.serviceId ? 1 : 0;
}
