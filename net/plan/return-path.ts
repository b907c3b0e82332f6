/** How a client's address survives: replies leave by the node that the connection came in by, told by that node's number. */
import type { Elements } from './balance.ts';
import { parseCidr, sizeOf } from './cidr.ts';
import { type Route, routeBy } from './routes.ts';
import type { PeerWay } from './ways.ts';

/**
 * A node's number is the place of its subnet's first /24 in the cluster's network, counted from here: so it is the same
 * on all nodes and at all times, and no two have one, since the control plane gives no /24 to two nodes. It is the conntrack zone of what comes in by that node, and the routing table of the way back.
 */
const firstNumber = 0x4000;
const lastNumber = 0x7fff;
/** The zones of ours, in nft's language. */
export const zones = `${firstNumber}-${lastNumber}`;
/** The packet mark of a reply is this, and the number in the lower half. */
export const replyMark = 0x47000000;
export const replyMask = 0xff000000;
/** The priorities of our policy rules: three that nobody else uses. */
const priority = { skip: 18200, lookup: 18201, end: 18202 } as const;

/** A policy routing rule, of our protocol number and priorities. */
export type Rule =
  /** Whatever is no marked reply from `link` goes on behind our rules: it pays for one rule, however many nodes there are. */
  | {
      readonly type: 'skip';
      readonly priority: number;
      readonly link: string;
      readonly mark: number;
      readonly mask: number;
      readonly to: number;
    }
  | { readonly type: 'lookup'; readonly priority: number; readonly mark: number; readonly table: number }
  | { readonly type: 'end'; readonly priority: number };

/** What it takes for replies to leave by each peer. */
export interface ReturnPaths {
  readonly elements: Elements;
  /** A default route by the peer, in a table of its own. */
  readonly routes: readonly Route[];
  readonly rules: readonly Rule[];
}

/**
 * The return paths by all peers that have a number and a way; `macs`: by address, of the hosts that are known on the link. A
 * tunnel's end has a MAC of its own. Of a peer on the link whose MAC is unknown, or another's too, nobody could tell that a
 * connection came by it: it is not in `direct`, so that connections to it are masqueraded.
 */
export function returnPaths(
  wanted: { readonly network: string; readonly bridge: string },
  ways: readonly PeerWay[],
  macs: ReadonlyMap<string, string>,
): ReturnPaths {
  const elements = new Map<string, string>();
  const routes: Route[] = [];
  const rules: Rule[] = [];
  const numbers = new Set<number>();
  const owners = new Map<string, number>();
  for (const mac of macs.values()) owners.set(mac, (owners.get(mac) ?? 0) + 1);
  for (const { kind, peer, subnet, ...way } of ways) {
    if (kind === 'none') continue;
    const number = numberOf(subnet, wanted.network);
    if (number === undefined || numbers.has(number)) continue;
    numbers.add(number);
    const mark = replyMark + number;
    elements.set(`reply_marks ${number}`, String(mark));
    elements.set(`returning ${peer.address} . ${subnet}`, '');
    routes.push(routeBy(way, '0.0.0.0/0', number));
    rules.push({ type: 'lookup', priority: priority.lookup, mark, table: number });
    const mac = way.mac ?? macs.get(peer.address);
    if (mac === undefined || (way.mac === undefined && owners.get(mac) !== 1)) continue;
    elements.set(`ingress ${mac}`, String(number));
    elements.set(`direct ${subnet}`, '');
  }
  if (rules.length > 0) {
    const { bridge: link } = wanted;
    rules.push({ type: 'skip', priority: priority.skip, link, mark: replyMark, mask: replyMask, to: priority.end });
    rules.push({ type: 'end', priority: priority.end });
  }
  return { elements, routes, rules };
}

/** The number of the node with that subnet; undefined outside of the network and beyond the last number. */
export function numberOf(subnet: string, network: string): number | undefined {
  const own = parseCidr(subnet);
  const whole = parseCidr(network);
  const place = Math.floor((own.base - whole.base) / 256);
  const number = firstNumber + place;
  return place >= 0 && own.base < whole.base + sizeOf(whole) && number <= lastNumber ? number : undefined;
}

/** True for a priority of our rules. */
export function isRulePriority(value: number): boolean {
  return value >= priority.skip && value <= priority.end;
}

/** How people write a rule. */
export function describeRule(rule: Rule): string {
  const hex = (value: number) => `0x${value.toString(16)}`;
  switch (rule.type) {
    case 'skip':
      return `${rule.priority}: not iif ${rule.link} fwmark ${hex(rule.mark)}/${hex(rule.mask)} goto ${rule.to}`;
    case 'lookup':
      return `${rule.priority}: fwmark ${hex(rule.mark)} lookup ${rule.table}`;
    case 'end':
      return `${rule.priority}: nop`;
  }
}
