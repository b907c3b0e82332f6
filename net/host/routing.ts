/** Routes and policy rules: the requests that make ours, the dumps that read them, and the kernel's own opinion of a way. */
import { describeRule, isRulePriority, type Rule } from '#net/plan/return-path.ts';
import { describeRoute, type Route, routeMetric, routeProtocol } from '#net/plan/routes.ts';
import { isFault } from '#proto/kernel/errors.ts';
import {
  addressBytes,
  addressText,
  attribute,
  attributesOf,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  nested,
  type Request,
  textOf,
} from './netlink.ts';

const RTM = { newRoute: 24, deleteRoute: 25, getRoute: 26, newRule: 32, deleteRule: 33, getRule: 34 } as const;
const AF_INET = 2;
const AF_INET6 = 10;
const RTA = { destination: 1, oif: 4, gateway: 5, priority: 6, source: 7, metrics: 8, table: 15 } as const;
const RTAX_MTU = 2;
const FRA = { link: 3, goto: 4, priority: 6, mark: 10, table: 15, mask: 16, protocol: 21 } as const;
const FR_ACT = { lookup: 1, goto: 2, end: 3 } as const;
const FIB_RULE_INVERT = 2;
const RTN = { unicast: 1, unreachable: 7 } as const;
const RT_TABLE_UNSPEC = 0;
const RT_TABLE_MAIN = 254;
const RT_SCOPE_UNIVERSE = 0;
const RT_SCOPE_LINK = 253;
const RTNH_F_ONLINK = 4;

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
  readonly mtu?: number | undefined;
  readonly source?: string | undefined;
}

function routeBody(parts: RouteParts): Buffer {
  const [address = '0.0.0.0', prefix = '0'] = parts.destination?.split('/') ?? [];
  const head = Buffer.alloc(12);
  head[0] = familyOf(address);
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
    ...(parts.source === undefined ? [] : [attribute(RTA.source, addressBytes(parts.source))]),
    ...(parts.mtu === undefined ? [] : [nested(RTA.metrics, attribute(RTAX_MTU, parts.mtu))]),
  ]);
}

const familyOf = (address: string) => (address.includes(':') ? AF_INET6 : AF_INET);

function ownRoute(route: Route, linkIndex: (name: string) => number): RouteParts {
  const { destination } = route;
  switch (route.type) {
    case 'via': {
      const { gateway, link, mtu, source } = route;
      const onlink = link === undefined ? {} : { oif: linkIndex(link), flags: RTNH_F_ONLINK };
      return { destination, gateway, metric: routeMetric, mtu, source, ...onlink, ...tableOf(route) };
    }
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

/** The routes of a task's namespace: the gateway on the link, and `byDefault` everything else by it. */
export function taskRoutes(index: number, gateway: string, byDefault: boolean): Request[] {
  const flags = NLM_F_CREATE | NLM_F_REPLACE;
  const toGateway = { destination: `${gateway}/32`, oif: index, scope: RT_SCOPE_LINK };
  const rest = { gateway, oif: index, flags: RTNH_F_ONLINK };
  return [
    { what: `routing gateway ${gateway}`, type: RTM.newRoute, flags, body: routeBody(toGateway) },
    ...(byDefault ? [{ what: 'routing by default', type: RTM.newRoute, flags, body: routeBody(rest) }] : []),
  ];
}

/** Our routes (by protocol number and metric): of the main table, and of tables that only a number has. */
export function listRoutes(netlink: Netlink, linkName: (index: number) => string): Route[] {
  const routes: Route[] = [];
  for (const family of [AF_INET, AF_INET6]) {
    const head = Buffer.alloc(12);
    head[0] = family;
    head[5] = routeProtocol;
    for (const { body } of netlink.dump({ what: 'listing routes', type: RTM.getRoute, flags: 0, body: head })) {
      const route = readRoute(body, linkName);
      if (route) routes.push(route);
    }
  }
  return routes;
}

function readRoute(body: Buffer, linkName: (index: number) => string): Route | undefined {
  if (body[5] !== routeProtocol) return undefined;
  const attributes = attributesOf(body, 12);
  if (attributes.get(RTA.priority)?.readUInt32LE(0) !== routeMetric) return undefined;
  const number = attributes.get(RTA.table)?.readUInt32LE(0) ?? body[4] ?? 0;
  const everything = body[0] === AF_INET6 ? '::' : '0.0.0.0';
  const destination = `${addressText(attributes.get(RTA.destination)) || everything}/${body[1]}`;
  if (body[7] === RTN.unreachable) return { type: 'unreachable', destination };
  const link = linkName(attributes.get(RTA.oif)?.readUInt32LE(0) ?? 0);
  const gateway = attributes.get(RTA.gateway);
  if (!gateway) return { type: 'link', destination, link };
  const source = attributes.get(RTA.source);
  const mtu = attributesOf(attributes.get(RTA.metrics) ?? Buffer.alloc(0))
    .get(RTAX_MTU)
    ?.readUInt32LE(0);
  return {
    type: 'via',
    destination,
    gateway: addressText(gateway),
    ...(number === RT_TABLE_MAIN ? {} : { table: number }),
    ...(body.readUInt32LE(8) & RTNH_F_ONLINK ? { link } : {}),
    ...(mtu === undefined ? {} : { mtu }),
    ...(source ? { source: addressText(source) } : {}),
  };
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

/** The width that a router has told the kernel of the path to an address; undefined where none has. */
export function cachedMtu(netlink: Netlink, address: string): number | undefined {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head[1] = 32;
  const body = Buffer.concat([head, attribute(RTA.destination, addressBytes(address))]);
  try {
    const answer = netlink.ask({ what: `looking for the way to ${address}`, type: RTM.getRoute, flags: 0, body });
    const metrics = attributesOf(answer.body, 12).get(RTA.metrics);
    return metrics && attributesOf(metrics).get(RTAX_MTU)?.readUInt32LE(0);
  } catch (error) {
    if (isFault(error, 'unavailable', 'forbidden')) return undefined;
    throw error;
  }
}

/** How the kernel sends to an IPv4 address. */
export interface HostWay {
  /** Index of the link. */
  readonly link: number;
  /** The address is on it. */
  readonly direct: boolean;
  /** Who is on the link: the address itself, or a router. */
  readonly next: string;
  /** This host's address there. */
  readonly source: string;
}

/** undefined where there is no way. */
export function wayTo(netlink: Netlink, address: string): HostWay | undefined {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head[1] = 32;
  const body = Buffer.concat([head, attribute(RTA.destination, addressBytes(address))]);
  try {
    const answer = netlink.ask({ what: `looking for the way to ${address}`, type: RTM.getRoute, flags: 0, body });
    const attributes = attributesOf(answer.body, 12);
    const link = attributes.get(RTA.oif)?.readUInt32LE(0);
    if (answer.body[7] !== RTN.unicast || link === undefined) return undefined;
    const gateway = attributes.get(RTA.gateway);
    return {
      link,
      direct: !gateway,
      next: gateway ? addressText(gateway) : address,
      source: addressText(attributes.get(RTA.source)),
    };
  } catch (error) {
    if (isFault(error, 'unavailable', 'forbidden')) return undefined;
    throw error;
  }
}
