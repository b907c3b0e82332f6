/** What a node says of its own networks: the link of its address, its IPv6 address there, and the networks that are the host's and not ours. */
import { formatAddress6 } from '#net/plan/address6.ts';
import { contains, formatCidr, parseCidr } from '#net/plan/cidr.ts';
import { routeProtocol } from '#net/plan/routes.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Node } from '#proto/model/node.ts';
import { addressText, attributesOf, Netlink } from './netlink.ts';
import { listLinks } from './rtnetlink.ts';

export type HostFacts = Pick<Node, 'link' | 'address6' | 'foreignNetworks'>;

/** An address of a link. `flags`: the kernel's IFA_F_…. */
export interface HostAddress {
  readonly index: number;
  readonly address: string;
  readonly prefix: number;
  readonly flags: number;
}

/** A route of the main table: where it leads, by which link (0: several, or none), and who made it. */
export interface HostRoute {
  readonly destination: string;
  readonly index: number;
  readonly protocol: number;
}

export interface HostSeen {
  /** Names by index. */
  readonly links: ReadonlyMap<number, string>;
  readonly addresses: readonly HostAddress[];
  readonly addresses6: readonly HostAddress[];
  readonly routes: readonly HostRoute[];
}

const RTM = { getAddress: 22, getRoute: 26 } as const;
const AF_INET = 2;
const AF_INET6 = 10;
const IFA = { address: 1, local: 2, flags: 8 } as const;
const RTA = { destination: 1, oif: 4, table: 15 } as const;
const RTN_UNICAST = 1;
const RT_TABLE_MAIN = 254;
const RT_SCOPE_UNIVERSE = 0;
/** Temporary, failed, deprecated or tentative: not what others should be told. */
const unsteady = 0x01 | 0x08 | 0x20 | 0x40;
const permanent = 0x80;
/** More networks than this are not told: the widest are. */
const mostNetworks = 100;
/** Loopback, link-local, multicast and reserved: nobody's network. */
const nobodys = ['127.0.0.0/8', '169.254.0.0/16', '224.0.0.0/3'].map(parseCidr);

/** The facts of the namespace that the caller is in, for a node of this IPv4 address. Faults: those of the kernel. */
export function readHostFacts(address: string): HostFacts {
  const netlink = new Netlink(0);
  try {
    const links = new Map(listLinks(netlink).map(({ index, name }) => [index, name]));
    return factsOf(
      {
        links,
        addresses: listHostAddresses(netlink, AF_INET),
        addresses6: listHostAddresses6(netlink),
        routes: listHostRoutes(netlink),
      },
      address,
    );
  } finally {
    netlink.close();
  }
}

/** Of what was seen, what is told of a node of this address: the same order for the same host. */
export function factsOf(seen: HostSeen, address: string): HostFacts {
  const own = seen.addresses.find((one) => one.address === address);
  const address6 = seen.addresses6
    .filter((one) => one.index === own?.index && (one.flags & unsteady) === 0)
    .sort((a, b) => (b.flags & permanent) - (a.flags & permanent) || (a.address < b.address ? -1 : 1))[0];
  return {
    link: own ? `${own.address}/${own.prefix}` : '',
    address6: address6?.address ?? '',
    foreignNetworks: foreignNetworks(seen),
  };
}

/** Networks that others' addresses are in; one that lies in another is told by that one. */
function foreignNetworks({ links, routes }: HostSeen): string[] {
  const networks = routes
    .filter(({ protocol, index }) => protocol !== routeProtocol && !isOurs(links.get(index) ?? ''))
    .map(({ destination }) => parseCidr(destination))
    // Half of all addresses is how tunnels write "by default".
    .filter((cidr) => cidr.prefix > 1 && !nobodys.some((range) => contains(range, cidr.base)))
    .sort((a, b) => a.prefix - b.prefix || a.base - b.base);
  const widest: typeof networks = [];
  for (const cidr of networks) {
    if (widest.length >= mostNetworks) break;
    if (!widest.some((wide) => contains(wide, cidr.base))) widest.push(cidr);
  }
  return widest.map(formatCidr);
}

function isOurs(link: string): boolean {
  return link.startsWith('gantry');
}

function listHostAddresses(netlink: Netlink, family: typeof AF_INET | typeof AF_INET6): HostAddress[] {
  const request = Buffer.alloc(8);
  request[0] = family;
  const messages = netlink.dump({ what: 'listing addresses', type: RTM.getAddress, flags: 0, body: request });
  return messages.flatMap(({ body }) => {
    // Link-local ones mean nothing without the link.
    if (body[0] !== family || (family === AF_INET6 && body[3] !== RT_SCOPE_UNIVERSE)) return [];
    const attributes = attributesOf(body, 8);
    const bytes = attributes.get(IFA.local) ?? attributes.get(IFA.address);
    if (!bytes) return [];
    const flags = attributes.get(IFA.flags)?.readUInt32LE(0) ?? body[2] ?? 0;
    const address = family === AF_INET ? addressText(bytes) : formatAddress6(bytes);
    return [{ index: body.readUInt32LE(4), address, prefix: body[1] ?? 0, flags }];
  });
}

/** None where the kernel has no IPv6. */
function listHostAddresses6(netlink: Netlink): HostAddress[] {
  try {
    return listHostAddresses(netlink, AF_INET6);
  } catch (error) {
    if (isFault(error, 'unsupported')) return [];
    throw error;
  }
}

function listHostRoutes(netlink: Netlink): HostRoute[] {
  const request = Buffer.alloc(12);
  request[0] = AF_INET;
  const messages = netlink.dump({ what: 'listing routes', type: RTM.getRoute, flags: 0, body: request });
  return messages.flatMap(({ body }) => {
    const attributes = attributesOf(body, 12);
    const table = attributes.get(RTA.table)?.readUInt32LE(0) ?? body[4];
    if (table !== RT_TABLE_MAIN || body[7] !== RTN_UNICAST) return [];
    const destination = `${addressText(attributes.get(RTA.destination)) || '0.0.0.0'}/${body[1]}`;
    return [{ destination, index: attributes.get(RTA.oif)?.readInt32LE(0) ?? 0, protocol: body[5] ?? 0 }];
  });
}
