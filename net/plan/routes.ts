/** Which routes a node needs to reach every task of the cluster. */
import type { Peer } from '#proto/model/assignment.ts';
import { formatCidr, parseCidr, tryAddress } from './cidr.ts';

/** The routing protocol number that marks a route as ours (rtm_protocol; 'G'). Routes of other numbers are never touched. */
export const routeProtocol = 0x47;
/** The metric of our routes: one nobody else uses, so that replacing ours never replaces a foreign one. */
export const routeMetric = 0x47;

/** One route of our protocol number and metric; of the main table unless it says another. */
export type Route =
  | { readonly type: 'via'; readonly destination: string; readonly gateway: string; readonly table?: number }
  | { readonly type: 'link'; readonly destination: string; readonly link: string }
  | { readonly type: 'unreachable'; readonly destination: string };

/**
 * A route to each peer's subnet by its host; the VIPs lead to the bridge, so that the host itself may use them;
 * whatever else lies in the cluster's network is unreachable at once instead of leaking out by the default route.
 */
export function routesOf(wanted: {
  readonly nodeId: string;
  readonly subnet: string;
  readonly network: string;
  readonly vipNetwork: string;
  readonly peers: readonly Peer[];
  readonly bridge: string;
}): readonly Route[] {
  const routes: Route[] = [];
  const add = (route: Route) => routes.push(route);
  add({ type: 'unreachable', destination: formatCidr(parseCidr(wanted.network)) });
  add({ type: 'link', destination: formatCidr(parseCidr(wanted.vipNetwork)), link: wanted.bridge });
  const own = formatCidr(parseCidr(wanted.subnet));
  for (const peer of wanted.peers) {
    if (peer.nodeId === wanted.nodeId || peer.subnet === '' || tryAddress(peer.address) === undefined) continue;
    const destination = formatCidr(parseCidr(peer.subnet));
    if (destination !== own) add({ type: 'via', destination, gateway: peer.address });
  }
  return routes;
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
    case 'via':
      return `${route.destination} via ${route.gateway}${route.table === undefined ? '' : ` table ${route.table}`}`;
    case 'link':
      return `${route.destination} dev ${route.link}`;
    case 'unreachable':
      return `unreachable ${route.destination}`;
  }
}
