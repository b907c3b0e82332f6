/** Which routes a node needs to reach every task of the cluster. */
import { formatCidr, parseCidr } from './cidr.ts';
import { wireguardName } from './tunnel.ts';
import type { PeerWay } from './ways.ts';

/** The routing protocol number that marks a route as ours (rtm_protocol; 'G'). Routes of other numbers are never touched. */
export const routeProtocol = 0x47;
/** The metric of our routes: one nobody else uses, so that replacing ours never replaces a foreign one. */
export const routeMetric = 0x47;

/** One route of our protocol number and metric; of the main table unless it says another. IPv4 or IPv6, as its destination is. */
export type Route = ViaRoute | LinkRoute | { readonly type: 'unreachable'; readonly destination: string };

export interface ViaRoute {
  readonly type: 'via';
  readonly destination: string;
  readonly gateway: string;
  readonly table?: number;
  /** The link that the gateway is on whatever its address says. */
  readonly link?: string;
  /** Widest packet, bytes; without it that of the link. */
  readonly mtu?: number;
  /** By which address packets are sent that have none yet. */
  readonly source?: string;
}

export interface LinkRoute {
  readonly type: 'link';
  readonly destination: string;
  readonly link: string;
}

/**
 * A route to each peer's subnet by the way to it, and one to its end within WireGuard; the VIPs lead to the bridge, so that the
 * host itself may use them; whatever else lies in the cluster's network is unreachable at once instead of leaking out by the
 * default route.
 */
export function routesOf(
  wanted: { readonly network: string; readonly vipNetwork: string; readonly bridge: string },
  ways: readonly PeerWay[],
): readonly Route[] {
  const routes: Route[] = [];
  const add = (route: Route) => routes.push(route);
  add({ type: 'unreachable', destination: formatCidr(parseCidr(wanted.network)) });
  add({ type: 'link', destination: formatCidr(parseCidr(wanted.vipNetwork)), link: wanted.bridge });
  for (const { kind, subnet, ...way } of ways) {
    if (kind === 'none') continue;
    if (kind === 'encrypted') add({ type: 'link', destination: `${way.underlay}/32`, link: wireguardName });
    add(routeBy(way, subnet));
  }
  return routes;
}

/** The route to a destination by the way to a peer. */
export function routeBy(way: Pick<PeerWay, 'gateway' | 'link' | 'mtu'>, destination: string, table?: number): ViaRoute {
  const { gateway, link, mtu } = way;
  return {
    type: 'via',
    destination,
    gateway,
    ...(table === undefined ? {} : { table }),
    ...(link === undefined ? {} : { link }),
    ...(mtu === undefined ? {} : { mtu }),
  };
}

/** What tells routes apart: there is one of ours to a destination, in a table. */
export function routeKey(route: Route): string {
  return route.type === 'via' && route.table !== undefined
    ? `${route.destination} table ${route.table}`
    : route.destination;
}

/** How people write a route. */
export function describeRoute(route: Route): string {
  switch (route.type) {
    case 'via': {
      const { destination, gateway, link, mtu, source, table } = route;
      const words = [
        `${destination} via ${gateway}`,
        ...(link === undefined ? [] : [`dev ${link} onlink`]),
        ...(source === undefined ? [] : [`src ${source}`]),
        ...(mtu === undefined ? [] : [`mtu ${mtu}`]),
        ...(table === undefined ? [] : [`table ${table}`]),
      ];
      return words.join(' ');
    }
    case 'link':
      return `${route.destination} dev ${route.link}`;
    case 'unreachable':
      return `unreachable ${route.destination}`;
  }
}
