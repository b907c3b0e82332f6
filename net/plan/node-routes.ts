/** All routes of a node: by the ways to its peers, to the further addresses of tasks here and there, and the same in IPv6. */
import type { Backend, Endpoint } from '#proto/model/assignment.ts';
import { tryAddress } from './cidr.ts';
import type { Family } from './family.ts';
import type { Networks } from './isolation.ts';
import { furtherAddresses, type LocalTask } from './local-tasks.ts';
import { type Route, routeBy, routeKey } from './routes.ts';
import type { PeerWay } from './ways.ts';

/** Addresses out of networks' own subnets, of tasks on other nodes: service id to routes. Services without any are not in it. */
export type FurtherRoutes = ReadonlyMap<string, readonly Route[]>;

/** What the routes follow from. */
export interface RouteParts {
  readonly bridge: string;
  readonly nodeId: string;
  readonly network: string;
  readonly vipNetwork: string;
  readonly attachments: readonly LocalTask[];
  readonly networks: Networks;
  readonly families: readonly Family[];
  /** Of IPv4, by key, and the ways that they are by. */
  readonly ways: { readonly routes: ReadonlyMap<string, Route>; readonly list: readonly PeerWay[] };
  readonly further: FurtherRoutes;
}

/** The routes by key; those of `previous` where they follow from the same. */
export function nodeRoutes(
  parts: RouteParts,
  previous: { readonly parts: RouteParts; readonly routes: ReadonlyMap<string, Route> } | undefined,
): ReadonlyMap<string, Route> {
  const { networks, families, ways, bridge } = parts;
  if (previous && sameParts(parts, previous.parts)) return previous.routes;
  const routes = new Map(ways.routes);
  const add = (route: Route) => routes.set(routeKey(route), route);
  for (const destination of networks.subnets) add({ type: 'unreachable', destination });
  for (const theirs of parts.further.values()) for (const route of theirs) add(route);
  for (const task of parts.attachments) {
    for (const { address } of furtherAddresses(task, networks)) {
      add({ type: 'link', destination: `${address}/32`, link: bridge });
    }
  }
  for (const family of families) if (family.name === 'ip6') for (const route of routes6(parts, family)) add(route);
  return routes;
}

function sameParts(now: RouteParts, before: RouteParts): boolean {
  const fields = ['network', 'vipNetwork', 'networks', 'families', 'further'] as const;
  return (
    fields.every((field) => now[field] === before[field]) &&
    now.ways.routes === before.ways.routes &&
    now.attachments.length === before.attachments.length &&
    now.attachments.every((task, index) => task === before.attachments[index])
  );
}

/** As those of IPv4: VIPs to the bridge, peers by their ways, what nobody has to nowhere. */
function routes6({ network, vipNetwork, bridge, ways }: RouteParts, { range }: Family): readonly Route[] {
  const peers = ways.list.flatMap(({ subnet, six }): Route[] => {
    if (!six) return [];
    // Linux takes no gateway that another route leads elsewhere to, as that of before does.
    const end: Route[] = six.link ? [{ type: 'link', destination: `${six.gateway}/128`, link: six.link }] : [];
    return [...end, routeBy(six, range(subnet))];
  });
  return [
    { type: 'link', destination: range(vipNetwork), link: bridge },
    { type: 'unreachable', destination: range(network) },
    ...peers,
  ];
}

/** The routes to the further addresses of an endpoint's tasks, by the ways to their nodes. */
function furtherOf(
  { backends }: Endpoint,
  own: string,
  ways: ReadonlyMap<string, PeerWay>,
  networks: Networks,
): Route[] {
  return backends.flatMap((backend: Backend) => {
    const way = backend.nodeId === own || backend.addresses.length === 0 ? undefined : ways.get(backend.nodeId);
    if (!way || way.kind === 'none') return [];
    return furtherAddresses(backend, networks).flatMap(({ address }) =>
      tryAddress(address) === undefined ? [] : [routeBy(way, `${address}/32`)],
    );
  });
}

/** Those of all endpoints; `previous` with `changes` spares looking at the others. The same object where nothing is new. */
export function furtherRoutes(
  input: { readonly nodeId: string; readonly endpoints: readonly Endpoint[] },
  { networks, list }: { readonly networks: Networks; readonly list: readonly PeerWay[] },
  changes: ReadonlyMap<string, Endpoint | undefined> | undefined,
  previous: FurtherRoutes | undefined,
): FurtherRoutes {
  if (networks.subnets.length === 0) return previous?.size === 0 ? previous : new Map();
  const ways = new Map<string, PeerWay>(list.map((way) => [way.peer.nodeId, way]));
  const further = new Map(previous && changes ? previous : []);
  let news = !(previous && changes);
  const look = (id: string, endpoint: Endpoint | undefined) => {
    const routes = endpoint ? furtherOf(endpoint, input.nodeId, ways, networks) : [];
    if (routes.length === 0) news = further.delete(id) || news;
    else {
      further.set(id, routes);
      news = true;
    }
  };
  if (previous && changes) for (const [id, endpoint] of changes) look(id, endpoint);
  else for (const endpoint of input.endpoints) look(endpoint.serviceId, endpoint);
  return news || !previous ? further : previous;
}
