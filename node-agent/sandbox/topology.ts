/** The wires of a sandbox as values: which host is plugged in where, with which addresses and ways. Pure. */
import { Fault } from '#proto/kernel/errors.ts';
import { managerCounts, maxHosts, roleOf } from './layout.ts';

/** How the hosts of a sandbox are wired; fixed for as long as it exists. */
export interface Topology {
  /** `flat`: all hosts on one link. `routed`: on two by turns, with a router between them. */
  readonly layout: 'flat' | 'routed';
  /** Widest packet that the router lets through between the two links, bytes; 0: as wide as the links. */
  readonly mtu: number;
  /** Hosts that sit behind a router of their own that translates addresses: they dial out, nobody reaches them. */
  readonly nat: readonly string[];
  /** Whether links, hosts and the world beyond have IPv6 addresses too. */
  readonly ipv6: boolean;
}

/** Where a host is plugged in. */
export interface Place {
  /** The bridge, in the namespace of the switch, that its cable ends at. */
  readonly bridge: string;
  readonly address: string;
  /** '' where it has none. */
  readonly address6: string;
  /** What its network card is given, and its ways out, as `ip` takes them. */
  readonly addresses: readonly string[];
  readonly routes: readonly string[];
}

export const flatTopology: Topology = { layout: 'flat', mtu: 0, nat: [], ipv6: false };

/** The bridges of the switch, by what is plugged into them. */
export const bridges = { first: 'switch0', second: 'switch1', behind: 'behind0' } as const;
/** The networks of the links; every sandbox has its own switch, so all use the same. */
export const networks = { first: '10.90.0.0/24', second: '10.90.1.0/24', behind: '192.168.90.0/24' } as const;
const networks6 = { first: 'fd00:90::/64', second: 'fd00:90:0:1::/64' } as const;
/** Last parts of addresses on a link that are no host's. */
const worldPart = 254;
const routerPart = 253;
const natPart = 252;
const firstManagerPart = 250;
const mostManagers = Math.max(...managerCounts);
/** Smallest packet width that IPv6, and with it the sandbox, can do with. */
const smallestMtu = 1_280;

/** On the first link. */
export const worldAddress = '10.90.0.254';
/** All that a link of a sandbox has, but what is behind NAT. */
export const switchNetworks = '10.90.0.0/23';
/** Addresses beyond the switch that answer HTTP with the address of who asks. */
export const outside = { address: '203.0.113.1', address6: '2001:db8:113::1' } as const;

/** Faults: `invalid`, for what no sandbox can be. */
export function assertTopology(topology: Topology): void {
  const { layout, mtu, nat } = topology;
  if (layout === 'flat' && mtu !== 0)
    throw new Fault('invalid', 'a flat sandbox has no router whose packets could be narrower', {
      remedy: 'add --layout routed, or leave --mtu out',
    });
  if (mtu !== 0 && !(Number.isInteger(mtu) && mtu >= smallestMtu && mtu <= 1_500))
    throw new Fault('invalid', `packets of ${mtu} bytes cannot be the widest`, {
      remedy: `give --mtu a whole number from ${smallestMtu} to 1500`,
    });
  for (const host of nat) {
    numberOf(host);
    if (roleOf(host) === 'manager')
      throw new Fault('invalid', `${host} cannot be behind NAT: the hosts dial it`, {
        remedy: 'name a worker such as h3',
      });
  }
}

/** The place of a host. Throws `invalid` for a name that no host of a sandbox has. */
export function placeOf(topology: Topology, host: string): Place {
  const number = numberOf(host);
  if (topology.nat.includes(host)) {
    return {
      bridge: bridges.behind,
      address: on(networks.behind, number),
      address6: '',
      addresses: [`${on(networks.behind, number)}/24`],
      routes: [`default via ${on(networks.behind, worldPart)}`],
    };
  }
  // Managers, as the world, are on the first link; h2, h4 … are beyond the router.
  const side = topology.layout === 'routed' && roleOf(host) === 'worker' && number % 2 === 0 ? 'second' : 'first';
  const address = on(networks[side], number);
  const address6 = topology.ipv6 ? on6(networks6[side], number) : '';
  return {
    bridge: bridges[side],
    address,
    address6,
    addresses: [`${address}/24`, ...(address6 === '' ? [] : [`${address6}/64 nodad`])],
    routes: side === 'second' ? beyondRouter(topology) : besideWorld(topology),
  };
}

/** The card of the world, and its ways to what is beyond the router. */
export function worldPlace(topology: Topology): Omit<Place, 'bridge' | 'address' | 'address6'> {
  const { ipv6 } = topology;
  return {
    addresses: [
      `${on(networks.first, worldPart)}/24`,
      ...(ipv6 ? [`${on6(networks6.first, worldPart)}/64 nodad`] : []),
    ],
    routes: toSecond(topology),
  };
}

/** The router's two cards and its ways: those between its links are only as wide as asked. */
export function routerPlaces({ mtu, ipv6 }: Topology): {
  readonly cards: readonly { readonly bridge: string; readonly addresses: readonly string[] }[];
  readonly routes: readonly string[];
} {
  const sides = ['first', 'second'] as const;
  const cards = sides.map((side) => ({
    bridge: bridges[side],
    addresses: [
      `${on(networks[side], routerPart)}/24`,
      ...(ipv6 ? [`${on6(networks6[side], routerPart)}/64 nodad`] : []),
    ],
  }));
  // Locked, a route's width counts for what is forwarded too: the hosts see links of 1500, as on a way through the internet.
  const narrow = sides.flatMap((side, index) => [
    `${networks[side]} dev eth${index} proto kernel scope link src ${on(networks[side], routerPart)} mtu lock ${mtu}`,
    ...(ipv6 ? [`${networks6[side]} dev eth${index} proto kernel metric 256 mtu lock ${mtu}`] : []),
  ]);
  const out = [
    `default via ${on(networks.first, worldPart)}`,
    ...(ipv6 ? [`::/0 via ${on6(networks6.first, worldPart)}`] : []),
  ];
  return { cards, routes: [...(mtu === 0 ? [] : narrow), ...out] };
}

/** The router that translates addresses: its card on the first link, its ways, and its card for those behind it. */
export function natPlaces(topology: Topology): {
  readonly outer: Pick<Place, 'addresses' | 'routes'>;
  readonly inner: string;
  /** What it translates. */
  readonly network: string;
} {
  const outer = { addresses: [`${on(networks.first, natPart)}/24`], routes: besideWorld({ ...topology, ipv6: false }) };
  return { outer, inner: `${on(networks.behind, worldPart)}/24`, network: networks.behind };
}

function besideWorld(topology: Topology): string[] {
  return [
    `default via ${on(networks.first, worldPart)}`,
    ...(topology.ipv6 ? [`::/0 via ${on6(networks6.first, worldPart)}`] : []),
    ...toSecond(topology),
  ];
}

function beyondRouter({ ipv6 }: Topology): string[] {
  return [
    `default via ${on(networks.second, routerPart)}`,
    ...(ipv6 ? [`::/0 via ${on6(networks6.second, routerPart)}`] : []),
  ];
}

function toSecond({ layout, ipv6 }: Topology): string[] {
  if (layout === 'flat') return [];
  return [
    `${networks.second} via ${on(networks.first, routerPart)}`,
    ...(ipv6 ? [`${networks6.second} via ${on6(networks6.first, routerPart)}`] : []),
  ];
}

/** m1 is 250, m2 is 249 and so on; hK is K. Throws `invalid` for other names. */
export function numberOf(host: string): number {
  const [, role, digits] = /^([mh])([1-9][0-9]{0,2})$/.exec(host) ?? [];
  const index = Number(digits ?? Number.NaN);
  if (role === 'm' && index <= mostManagers) return firstManagerPart + 1 - index;
  if (role === 'h' && index <= maxHosts) return index;
  throw new Fault('invalid', `"${host}" is not a host of a sandbox`, {
    remedy: `hosts are m1 to m${mostManagers} and h1 to h${maxHosts}`,
  });
}

/** The address of a manager: on the first link, however the rest is wired. */
export function managerAddress(manager: string): string {
  return on(networks.first, numberOf(manager));
}

/** A host keeps its network card when it boots anew: with another one, its neighbours would talk to the old for ten seconds. */
export function hardwareAddressOf(host: string): string {
  return `02:67:00:00:00:${numberOf(host).toString(16).padStart(2, '0')}`;
}

function on(network: string, part: number): string {
  return network.replace(/\d+\/\d+$/, String(part));
}

/** The part as it is written in the IPv4 address, so that a reader knows both by one number. */
function on6(network: string, part: number): string {
  return network.replace(/\/\d+$/, String(part));
}
