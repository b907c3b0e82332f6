/** Links, addresses and routes: the requests that make them, the dumps that read them, and who else has changed them. */
import { describeRule, isRulePriority, type Rule } from '#net/plan/return-path.ts';
import { describeRoute, type Route, routeMetric, routeProtocol } from '#net/plan/routes.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { closeFd, errnoOf, MSG_DONTWAIT, openNetlink, receive } from './libc.ts';
import {
  addressBytes,
  addressText,
  attribute,
  attributesOf,
  joinGroup,
  messagesOf,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  nested,
  type Request,
  textOf,
} from './netlink.ts';

const RTM = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newRoute: 24,
  deleteRoute: 25,
  getRoute: 26,
  newNeighbour: 28,
  getNeighbour: 30,
  newRule: 32,
  deleteRule: 33,
  getRule: 34,
} as const;
const IFLA = { address: 1, name: 3, mtu: 4, master: 10, linkInfo: 18, netnsFd: 28 } as const;
const RTA = { destination: 1, oif: 4, gateway: 5, priority: 6, table: 15 } as const;
const FRA = { link: 3, goto: 4, priority: 6, mark: 10, table: 15, mask: 16, protocol: 21 } as const;
const FR_ACT = { lookup: 1, goto: 2, end: 3 } as const;
const FIB_RULE_INVERT = 2;
const NDA = { address: 1, mac: 2 } as const;
const NTF_USE = 1;
const RTN = { unicast: 1, unreachable: 7 } as const;
const AF_INET = 2;
const IFF_UP = 1;
const RT_TABLE_UNSPEC = 0;
const RT_TABLE_MAIN = 254;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTNH_F_ONLINK = 4;

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  readonly mac: string;
  readonly mtu: number;
  /** Index of the bridge it is a port of; 0: none. */
  readonly master: number;
  readonly kind: string;
}

function linkBody(index: number, flags: number, change: number, ...attributes: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(16);
  head.writeInt32LE(index, 4);
  head.writeUInt32LE(flags, 8);
  head.writeUInt32LE(change, 12);
  return Buffer.concat([head, ...attributes]);
}

const macText = (bytes: Buffer) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
const macBytes = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex');

export function createBridge(name: string, mac: string): Request {
  return {
    what: `making bridge ${name}`,
    type: RTM.newLink,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(
      0,
      IFF_UP,
      IFF_UP,
      attribute(IFLA.name, name),
      attribute(IFLA.address, macBytes(mac)),
      nested(IFLA.linkInfo, attribute(1, 'bridge')),
    ),
  };
}

/** A veth: `name` here, up, on the bridge; its other end `peer` down in the namespace of `netnsFd`. */
export function createVeth(veth: {
  readonly name: string;
  readonly peer: string;
  readonly peerMac: string;
  readonly netnsFd: number;
  readonly bridge: number;
  readonly mtu: number;
}): Request {
  const other = linkBody(
    0,
    0,
    0,
    attribute(IFLA.name, veth.peer),
    attribute(IFLA.mtu, veth.mtu),
    attribute(IFLA.address, macBytes(veth.peerMac)),
    attribute(IFLA.netnsFd, veth.netnsFd),
  );
  return {
    what: `making link ${veth.name}`,
    type: RTM.newLink,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(
      0,
      IFF_UP,
      IFF_UP,
      attribute(IFLA.name, veth.name),
      attribute(IFLA.mtu, veth.mtu),
      attribute(IFLA.master, veth.bridge),
      nested(IFLA.linkInfo, attribute(1, 'veth'), nested(2, nested(1, other))),
    ),
  };
}

/** Brings a link up, and where given sets its MAC, or makes it a port of a bridge. */
export function setLink(link: { readonly index: number; readonly mac?: string; readonly master?: number }): Request {
  return {
    what: `setting link ${link.index}`,
    type: RTM.newLink,
    flags: 0,
    body: linkBody(
      link.index,
      IFF_UP,
      IFF_UP,
      ...(link.mac === undefined ? [] : [attribute(IFLA.address, macBytes(link.mac))]),
      ...(link.master === undefined ? [] : [attribute(IFLA.master, link.master)]),
    ),
  };
}

/**
 * Makes a link a port of a bridge that sends back out of it what came in by it, where a task is led to itself: with
 * br_netfilter, a VIP is translated while its packet is still on the bridge.
 */
export function enslave(index: number, bridge: number): Request[] {
  const hairpin = nested(IFLA.linkInfo, attribute(4, 'bridge'), nested(5, attribute(4, Buffer.from([1]))));
  return [
    setLink({ index, master: bridge }),
    {
      what: `setting the bridge port ${index}`,
      type: RTM.newLink,
      flags: 0,
      body: linkBody(index, 0, 0, hairpin),
    },
  ];
}

export function deleteLink(name: string): Request {
  return {
    what: `deleting link ${name}`,
    type: RTM.deleteLink,
    flags: 0,
    body: linkBody(0, 0, 0, attribute(IFLA.name, name)),
  };
}

function readLink(body: Buffer): Link {
  const attributes = attributesOf(body, 16);
  const info = attributes.get(IFLA.linkInfo);
  return {
    index: body.readInt32LE(4),
    name: textOf(attributes.get(IFLA.name)),
    up: (body.readUInt32LE(8) & IFF_UP) !== 0,
    mac: macText(attributes.get(IFLA.address) ?? Buffer.alloc(0)),
    mtu: attributes.get(IFLA.mtu)?.readUInt32LE(0) ?? 0,
    master: attributes.get(IFLA.master)?.readUInt32LE(0) ?? 0,
    kind: info ? textOf(attributesOf(info).get(1)) : '',
  };
}

/** The link of that name, undefined where there is none. */
export function findLink(netlink: Netlink, name: string): Link | undefined {
  try {
    const body = linkBody(0, 0, 0, attribute(IFLA.name, name));
    return readLink(netlink.ask({ what: `looking for link ${name}`, type: RTM.getLink, flags: 0, body }).body);
  } catch (error) {
    if (isFault(error, 'not-found')) return undefined;
    throw error;
  }
}

export function listLinks(netlink: Netlink): Link[] {
  const request = { what: 'listing links', type: RTM.getLink, flags: 0, body: linkBody(0, 0, 0) };
  return netlink.dump(request).map((message) => readLink(message.body));
}

function addressBody(index: number, cidr: string): Buffer {
  const [address = '', prefix] = cidr.split('/');
  const head = Buffer.alloc(8);
  head[0] = AF_INET;
  head[1] = Number(prefix);
  head.writeUInt32LE(index, 4);
  const bytes = addressBytes(address);
  return Buffer.concat([head, attribute(2, bytes), attribute(1, bytes)]);
}

/** Gives a link an address, `a.b.c.d/n`. */
export function addAddress(index: number, cidr: string): Request {
  const what = `adding address ${cidr}`;
  return { what, type: RTM.newAddress, flags: NLM_F_CREATE | NLM_F_REPLACE, body: addressBody(index, cidr) };
}

export function deleteAddress(index: number, cidr: string): Request {
  return { what: `deleting address ${cidr}`, type: RTM.deleteAddress, flags: 0, body: addressBody(index, cidr) };
}

/** All IPv4 addresses, with the index of their link. */
export function listAddresses(netlink: Netlink): { readonly index: number; readonly cidr: string }[] {
  const body = Buffer.alloc(8);
  body[0] = AF_INET;
  return netlink.dump({ what: 'listing addresses', type: RTM.getAddress, flags: 0, body }).map((message) => {
    const attributes = attributesOf(message.body, 8);
    const address = addressText(attributes.get(2) ?? attributes.get(1));
    return { index: message.body.readUInt32LE(4), cidr: `${address}/${message.body[1]}` };
  });
}

interface RouteParts {
  readonly destination?: string;
  readonly gateway?: string;
  readonly oif?: number;
  readonly type?: number;
  readonly scope?: number;
  readonly flags?: number;
  readonly protocol?: number;
  readonly metric?: number;
  readonly table?: number;
}

function routeBody(parts: RouteParts): Buffer {
  const [address = '0.0.0.0', prefix = '0'] = parts.destination?.split('/') ?? [];
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head[1] = Number(prefix);
  head[4] = parts.table === undefined ? RT_TABLE_MAIN : RT_TABLE_UNSPEC;
  head[5] = parts.protocol ?? routeProtocol;
  head[6] = parts.scope ?? RT_SCOPE_UNIVERSE;
  head[7] = parts.type ?? RTN.unicast;
  head.writeUInt32LE(parts.flags ?? 0, 8);
  return Buffer.concat([
    head,
    ...(prefix === '0' ? [] : [attribute(RTA.destination, addressBytes(address))]),
    ...(parts.gateway === undefined ? [] : [attribute(RTA.gateway, addressBytes(parts.gateway))]),
    ...(parts.oif === undefined ? [] : [attribute(RTA.oif, parts.oif)]),
    ...(parts.metric === undefined ? [] : [attribute(RTA.priority, parts.metric)]),
    ...(parts.table === undefined ? [] : [attribute(RTA.table, parts.table)]),
  ]);
}

function ownRoute(route: Route, linkIndex: (name: string) => number): RouteParts {
  const { destination } = route;
  switch (route.type) {
    case 'via':
      return { destination, gateway: route.gateway, metric: routeMetric, ...tableOf(route) };
    case 'link':
      return { destination, oif: linkIndex(route.link), scope: RT_SCOPE_LINK, metric: routeMetric };
    case 'unreachable':
      return { destination, type: RTN.unreachable, metric: routeMetric };
  }
}

function tableOf(route: Route): { readonly table?: number } {
  return route.type === 'via' && route.table !== undefined ? { table: route.table } : {};
}

/** Makes one of our routes, in place of one of ours to the same destination. */
export function replaceRoute(route: Route, linkIndex: (name: string) => number): Request {
  return {
    what: `routing ${describeRoute(route)}`,
    type: RTM.newRoute,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: routeBody(ownRoute(route, linkIndex)),
  };
}

export function deleteRoute(route: Route): Request {
  const type = route.type === 'unreachable' ? RTN.unreachable : RTN.unicast;
  const scope = route.type === 'link' ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  const body = routeBody({ destination: route.destination, type, scope, metric: routeMetric, ...tableOf(route) });
  return { what: `removing route ${describeRoute(route)}`, type: RTM.deleteRoute, flags: 0, body };
}

/** The routes of a task's namespace: the gateway on the link, everything else by it. */
export function taskRoutes(index: number, gateway: string): Request[] {
  const flags = NLM_F_CREATE | NLM_F_REPLACE;
  const toGateway = { destination: `${gateway}/32`, oif: index, scope: RT_SCOPE_LINK };
  const rest = { gateway, oif: index, flags: RTNH_F_ONLINK };
  return [
    { what: `routing gateway ${gateway}`, type: RTM.newRoute, flags, body: routeBody(toGateway) },
    { what: 'routing by default', type: RTM.newRoute, flags, body: routeBody(rest) },
  ];
}

/** Our routes (by protocol number and metric): of the main table, and of tables that only a number has. */
export function listRoutes(netlink: Netlink, linkName: (index: number) => string): Route[] {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head[5] = routeProtocol;
  const routes: Route[] = [];
  for (const { body } of netlink.dump({ what: 'listing routes', type: RTM.getRoute, flags: 0, body: head })) {
    if (body[5] !== routeProtocol) continue;
    const attributes = attributesOf(body, 12);
    if (attributes.get(RTA.priority)?.readUInt32LE(0) !== routeMetric) continue;
    const number = attributes.get(RTA.table)?.readUInt32LE(0) ?? body[4] ?? 0;
    const table = number === RT_TABLE_MAIN ? {} : { table: number };
    const destination = `${addressText(attributes.get(RTA.destination)) || '0.0.0.0'}/${body[1]}`;
    const gateway = attributes.get(RTA.gateway);
    if (body[7] === RTN.unreachable) routes.push({ type: 'unreachable', destination });
    else if (gateway) routes.push({ type: 'via', destination, gateway: addressText(gateway), ...table });
    else {
      routes.push({ type: 'link', destination, link: linkName(attributes.get(RTA.oif)?.readUInt32LE(0) ?? 0) });
    }
  }
  return routes;
}

function ruleBody(rule: Rule): Buffer {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head[7] = FR_ACT[rule.type === 'skip' ? 'goto' : rule.type];
  head.writeUInt32LE(rule.type === 'skip' ? FIB_RULE_INVERT : 0, 8);
  return Buffer.concat([
    head,
    attribute(FRA.priority, rule.priority),
    attribute(FRA.protocol, Buffer.from([routeProtocol])),
    ...(rule.type === 'skip'
      ? [attribute(FRA.link, rule.link), attribute(FRA.goto, rule.to), attribute(FRA.mask, rule.mask)]
      : []),
    ...(rule.type === 'lookup' ? [attribute(FRA.table, rule.table)] : []),
    ...(rule.type === 'end' ? [] : [attribute(FRA.mark, rule.mark)]),
  ]);
}

export function addRule(rule: Rule): Request {
  return {
    what: `adding rule ${describeRule(rule)}`,
    type: RTM.newRule,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: ruleBody(rule),
  };
}

export function deleteRule(rule: Rule): Request {
  return { what: `removing rule ${describeRule(rule)}`, type: RTM.deleteRule, flags: 0, body: ruleBody(rule) };
}

/** Our policy rules (by protocol number and priority). */
export function listRules(netlink: Netlink): Rule[] {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  return netlink
    .dump({ what: 'listing rules', type: RTM.getRule, flags: 0, body: head })
    .flatMap(({ body }): Rule[] => {
      const attributes = attributesOf(body, 12);
      const number = (type: number) => attributes.get(type)?.readUInt32LE(0) ?? 0;
      const priority = number(FRA.priority);
      if (attributes.get(FRA.protocol)?.[0] !== routeProtocol || !isRulePriority(priority)) return [];
      const mark = number(FRA.mark);
      switch (body[7]) {
        case FR_ACT.goto: {
          const link = textOf(attributes.get(FRA.link));
          return [{ type: 'skip', priority, link, mark, mask: number(FRA.mask), to: number(FRA.goto) }];
        }
        case FR_ACT.lookup:
          return [{ type: 'lookup', priority, mark, table: number(FRA.table) }];
        default:
          return [{ type: 'end', priority }];
      }
    });
}

/** Index of the link by which an address is reached, and whether it is on it; undefined where there is no way. */
export function wayTo(
  netlink: Netlink,
  address: string,
): { readonly link: number; readonly direct: boolean } | undefined {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head[1] = 32;
  const body = Buffer.concat([head, attribute(RTA.destination, addressBytes(address))]);
  try {
    const answer = netlink.ask({ what: `looking for the way to ${address}`, type: RTM.getRoute, flags: 0, body });
    const attributes = attributesOf(answer.body, 12);
    const link = attributes.get(RTA.oif)?.readUInt32LE(0);
    if (answer.body[7] !== RTN.unicast || link === undefined) return undefined;
    return { link, direct: !attributes.has(RTA.gateway) };
  } catch (error) {
    if (isFault(error, 'unavailable', 'forbidden')) return undefined;
    throw error;
  }
}

/** Has the kernel find out, or make sure of, the MAC of an address on a link. */
export function askNeighbour(index: number, address: string): Request {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head.writeInt32LE(index, 4);
  head[10] = NTF_USE;
  return {
    what: `asking for ${address}`,
    type: RTM.newNeighbour,
    flags: NLM_F_CREATE,
    body: Buffer.concat([head, attribute(NDA.address, addressBytes(address))]),
  };
}

/** The neighbours that have a MAC: IPv4 address to MAC. */
export function listNeighbours(netlink: Netlink): ReadonlyMap<string, string> {
  const body = Buffer.alloc(12);
  body[0] = AF_INET;
  const macs = new Map<string, string>();
  for (const message of netlink.dump({ what: 'listing neighbours', type: RTM.getNeighbour, flags: 0, body })) {
    const attributes = attributesOf(message.body, 12);
    const mac = attributes.get(NDA.mac);
    if (mac?.length === 6 && mac.some((byte) => byte !== 0))
      macs.set(addressText(attributes.get(NDA.address)), macText(mac));
  }
  return macs;
}

/** Groups of the kernel's notifications. */
export const links = [1 /* links */, 5 /* IPv4 addresses */, 7 /* IPv4 routes */, 8 /* IPv4 rules */] as const;
export const neighbours = [3] as const;

/** Notices changes that are not our own doing. */
export class Monitor {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(1 << 16);
  readonly #own: ReadonlySet<number>;

  /** `own`: port ids of the sockets whose changes are not news. */
  constructor(groups: readonly number[], own: ReadonlySet<number>) {
    this.#fd = openNetlink(0, 1 << 20).fd;
    this.#own = own;
    for (const group of groups) joinGroup(this.#fd, group);
  }

  /** Takes what has been heard since; true when it, or what was lost of it, may concern us. */
  disturbed(): boolean {
    let news = false;
    for (;;) {
      try {
        const length = receive(this.#fd, this.#buffer, MSG_DONTWAIT);
        for (const message of messagesOf(this.#buffer.subarray(0, length))) {
          if (!this.#own.has(message.portId)) news = true;
        }
      } catch (error) {
        if (errnoOf(error) === 'EAGAIN') return news;
        if (errnoOf(error) !== 'ENOBUFS') throw error;
        news = true;
      }
    }
  }

  close(): void {
    closeFd(this.#fd);
  }
}
