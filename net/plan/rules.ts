/** The text of our nftables tables, one for each family: maps, base chains, and the dispatch chains, one per number of backends and per reach. */
import type { FamilyName } from './family.ts';
import { type Reach, reachChainName } from './isolation.ts';
import { replyMark, replyMask, zones } from './return-path.ts';
import { bucketCount } from './sticky.ts';
import { tunnelName, tunnelPort, wireguardName } from './tunnel.ts';
import { endOf } from './ways.ts';

/** The table we own, in family ip and, where some network has IPv6, in ip6. Everything outside of it is somebody else's. */
export const tableName = 'gantry';

/** What the agent sends again of what it held bears this mark; where it still leads to nobody, it is refused. */
export const heldMark = 0x47000001;
/** The group of the kernel's log by which the agent gets what is to be held. */
export const heldGroup = 0x4747;

/** What a set, map or chain is called, to its body in nft's language. */
export type Declarations = ReadonlyMap<string, string>;

/** The sets and maps, in an order in which they can be made. Keys and values: net/plan/balance.ts, net/plan/return-path.ts, net/plan/node-plan.ts. */
function setsOf(family: FamilyName): Record<string, string> {
  const type = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  return {
    services: `map services { type ${type} : verdict; }`,
    backends: `map backends { typeof ${family} daddr . numgen random mod 65536 : ${family} daddr; }`,
    published: 'map published { type inet_proto . inet_service : verdict; }',
    // Address and port in two maps: nft 1.0.6 finds "ip daddr . th dport" as a map's data contradictory once it is in the kernel.
    published_backends: `map published_backends { typeof meta l4proto . th dport . numgen random mod 65536 : ${family} daddr; }`,
    published_targets: 'map published_targets { type inet_proto . inet_service : inet_service; }',
    refused: 'set refused { type inet_proto . inet_service; }',
    // Of services whose calls are counted: VIPs, and published ports.
    counted: `set counted { type ${type}; counter; }`,
    counted_ports: 'set counted_ports { type inet_proto . inet_service; counter; }',
    hairpin: `set hairpin { type ${type} . ${type}; }`,
    hosts: `set hosts { type ${type}; }`,
    inside: `set inside { type ${type}; flags interval; }`,
    further: `set further { type ${type}; }`,
    // A number and an address: nft has no constants beside addresses, but a generator of one number is one.
    members: `set members { typeof numgen inc mod 1 . ${family} daddr; }`,
    senders: `map senders { type ${type} : verdict; }`,
    sources: `set sources { type ether_addr . ${type}; }`,
    ingress: 'map ingress { typeof ether saddr : ct original zone; }',
    reply_marks: 'map reply_marks { typeof ct original zone : meta mark; }',
    direct: `set direct { type ${type}; flags interval; }`,
    returning: `set returning { type ${type} . ${type}; flags interval; }`,
    ...(family === 'ip'
      ? { tunnels: 'set tunnels { type ipv4_addr . ipv4_addr; }', tunnel_ends: 'set tunnel_ends { type ipv4_addr; }' }
      : {}),
  };
}

/** What the table's rules speak of, in the words of its family. */
export interface RuleWords {
  readonly family: FamilyName;
  readonly subnet: string;
  readonly network: string;
  readonly vipNetwork: string;
  readonly gateway: string;
  readonly bridge: string;
  /** Tasks reach those whom they share a network with, and send by their own addresses: false where no network is known. */
  readonly isolated: boolean;
  /** The host has nftables see what passes between the ports of a bridge (br_netfilter). */
  readonly bridged: boolean;
  /** No packet of the cluster leaves this node in clear. */
  readonly encrypted: boolean;
  /** Some peer is, or may be, behind a tunnel: without, no packet is looked at for being one. */
  readonly tunnelled: boolean;
}

/**
 * The table without its elements. Told in packets:
 * - a VIP, or a published port of one of the node's own addresses, becomes a backend in prerouting (output for the host's
 *   own); what is still a VIP behind that has no backend and is refused; so are published ports without one;
 * - a task sends by its own addresses and MAC alone; what it begins goes by `senders` to the chain of those who reach the
 *   same as it, and is refused there unless it goes to one of those, or by a published port, or outside;
 * - what tasks send out of the cluster is masqueraded; within the cluster addresses stay as they are;
 * - a client from outside keeps its address on the way to a backend on another node. That node knows the node it came in
 *   by from the packet's MAC, gives its connections a conntrack zone of their own (another node may send the same client's
 *   same port), and marks the replies, which policy routing leads back there. It is masqueraded where that cannot work:
 *   towards a node that is not known to be on the link, towards a task with the network of another host, and back to the
 *   very host that it came from;
 * - a task that reaches itself by its VIP is masqueraded, or it would take its own packet for a forgery;
 * - tasks are reached from outside by what is published alone: not routed to directly, except by the cluster's hosts;
 * - tunnels' own packets are taken from peers alone, and conntrack does not look at them; those for an address within
 *   WireGuard neither come nor go by another link. Connections agree on segments that fit the narrowest route (`rt mtu`).
 */
export function declarationsOf(words: RuleWords, dispatchChains: ReadonlyMap<string, string>): Declarations {
  const { family, subnet, network, vipNetwork, gateway, isolated } = words;
  const bridge = `"${words.bridge}"`;
  const [saddr, daddr] = [`${family} saddr`, `${family} daddr`];
  const declarations = new Map<string, string>(Object.entries(setsOf(family)));
  for (const name of [...dispatchChains.keys()].sort()) declarations.set(name, dispatchChains.get(name) as string);
  const chain = (name: string, rules: readonly string[]) => declarations.set(name, chainBody(name, rules));
  const published = `fib daddr type local ${daddr} != ${gateway} meta l4proto . th dport vmap @published`;
  const refuseVips = [`${daddr} ${vipNetwork} meta l4proto tcp reject with tcp reset`, `${daddr} ${vipNetwork} reject`];
  const redirects = family === 'ip' ? 'icmp type redirect' : 'icmpv6 type nd-redirect';
  // Neighbours are asked for by addresses of the link, or by none.
  const byAddress = family === 'ip' ? '' : `${saddr} != fe80::/10 ${saddr} != :: `;
  chain('incoming', [
    'type filter hook prerouting priority -300; policy accept',
    ...tunnelPackets(words, (end) => [
      `${daddr} ${end} iifname != "${wireguardName}" drop`,
      `${saddr} . ${daddr} @tunnels notrack accept`,
      `${daddr} @tunnel_ends drop`,
    ]),
    ...(isolated ? [`iifname ${bridge} ${byAddress}ether saddr . ${saddr} != @sources drop`] : []),
    `${saddr} != ${network} ${daddr} ${subnet} ct original zone set ether saddr map @ingress`,
  ]);
  chain('replies', [
    'type filter hook prerouting priority -150; policy accept',
    `iifname ${bridge} ct direction reply meta mark set ct original zone map @reply_marks`,
  ]);
  const sent = tunnelPackets(words, (end) => [
    `${saddr} ${end} oifname != { "${tunnelName}", "${wireguardName}" } drop`,
    `${daddr} . ${saddr} @tunnels notrack accept`,
  ]);
  if (sent.length > 0) chain('outgoing', ['type filter hook output priority -300; policy accept', ...sent]);
  if (words.encrypted) chain('wire', inClear(words));
  chain('prerouting', [
    'type nat hook prerouting priority -100; policy accept',
    `${daddr} vmap @services`,
    // One comparison instead of a look into the routes: nothing is published at a task's address.
    `${daddr} ${network} accept`,
    published,
  ]);
  chain('output', [
    'type nat hook output priority -100; policy accept',
    `${daddr} vmap @services`,
    `${daddr} != ${family === 'ip' ? '127.0.0.0/8' : '::1'} ${published}`,
  ]);
  chain('postrouting', [
    'type nat hook postrouting priority 100; policy accept',
    `${saddr} . ${daddr} @hairpin masquerade`,
    // Most is within the network: said first, that saves looking into ranges.
    `${saddr} ${subnet} ${daddr} != ${network} ${daddr} != @inside oifname != ${bridge} masquerade`,
    `${daddr} != ${network} ${saddr} @further ${daddr} != @inside oifname != ${bridge} masquerade`,
    `${saddr} != ${network} ct status dnat ${saddr} != @inside ${daddr} ${network} oifname != ${bridge} ${daddr} != @direct masquerade`,
    `${saddr} != ${network} ct status dnat ${saddr} != @inside ${daddr} @hosts fib daddr type != local masquerade`,
    `${saddr} != ${network} ct status dnat ${saddr} . ${daddr} @returning masquerade`,
  ]);
  chain('forward', [
    'type filter hook forward priority 0; policy accept',
    'tcp flags syn tcp option maxseg size set rt mtu',
    'ct state established,related accept',
    // Of a connection that was forgotten with its backend: picked up in the middle, it would be led to another one.
    'ct state new ct status dnat tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset',
    ...refuseVips,
    ...(isolated
      ? [`iifname ${bridge} ${saddr} vmap @senders`, `iifname ${bridge} drop`]
      : [`iifname ${bridge} ${saddr} != ${subnet} drop`]),
    'ct status dnat accept',
    `oifname ${bridge} ct original zone ${zones} accept`,
    `${saddr} != ${network} ${daddr} @inside ${saddr} != @inside ${saddr} != @hosts drop`,
  ]);
  chain('input', [
    'type filter hook input priority 0; policy accept',
    `fib daddr type local ${daddr} != ${gateway} meta l4proto tcp meta l4proto . th dport @refused reject with tcp reset`,
    `fib daddr type local ${daddr} != ${gateway} meta l4proto . th dport @refused reject`,
  ]);
  chain('local', [
    'type filter hook output priority 0; policy accept',
    ...refuseVips,
    `oifname ${bridge} ${redirects} drop`,
    `ct status dnat ${redirects} drop`,
  ]);
  return declarations;
}

/** `end`: this node's address within WireGuard. */
function tunnelPackets(words: RuleWords, rules: (end: string) => readonly string[]): readonly string[] {
  const { family, subnet, tunnelled } = words;
  return family === 'ip' && tunnelled ? rules(endOf(subnet)).map((rule) => `udp dport ${tunnelPort} ${rule}`) : [];
}

/** While a device is missing, its routes are too, and packets would go as others lead: they had better not go. */
function inClear({ family, network, bridge }: RuleWords): readonly string[] {
  const ours = [bridge, tunnelName, wireguardName, 'lo'].map((link) => `"${link}"`).join(', ');
  return [
    'type filter hook postrouting priority 300; policy accept',
    `${family} daddr ${network} oifname != { ${ours} } drop`,
    // The mark of a packet is its envelope's, too.
    `meta mark & ${replyMask} == ${replyMark} oifname != { "${tunnelName}", "${wireguardName}" } drop`,
  ];
}

function chainBody(name: string, rules: readonly string[]): string {
  return `chain ${name} {\n${rules.map((rule) => `    ${rule};\n`).join('')}  }`;
}

/** The chain of all local tasks that reach the same: what is none of it is refused at once, and says that it is a rule. */
export function reachChain(
  reach: Reach,
  { family, vipNetwork, bridged }: Pick<RuleWords, 'family' | 'vipNetwork' | 'bridged'>,
): string {
  const prohibited = `reject with ${family === 'ip' ? 'icmp' : 'icmpv6'} type admin-prohibited`;
  return chainBody(reachChainName(reach), [
    ...reach.groups.map((group) => `numgen inc mod 1 offset ${group} . ${family} daddr @members accept`),
    `ct status dnat ct original ${family} daddr != ${vipNetwork} accept`,
    reach.internal ? `${family} daddr @hosts accept` : `${family} daddr != @inside accept`,
    // A reset that is sent on a bridge does not get back the address that its connection was translated from.
    ...(bridged ? [`ct status dnat ${prohibited}`] : []),
    'meta l4proto tcp reject with tcp reset',
    prohibited,
  ]);
}

/**
 * kN: one of a VIP's N backends at random; pN: one of a published port's. ks, ps: the one that the client's address says. With
 * a c in between it is counted, too: all that come here begin a connection. k0, p0: nobody is there yet, and the agent holds
 * the packet (net/host/held-packets): it gets a copy, and sends it again when it may pass, or is to be refused after all.
 */
export function dispatchChain(name: string, family: FamilyName): string {
  const [, kind, counted, choice] = /^([kp])(c?)(.+)$/.exec(name) ?? [];
  if (choice === '0') return chainBody(name, holdRules);
  const oneOf = choice === 's' ? `jhash ${family} saddr mod ${bucketCount} seed 0x47` : `numgen random mod ${choice}`;
  const target =
    kind === 'k'
      ? `${family} daddr . ${oneOf} map @backends`
      : `meta l4proto . th dport . ${oneOf} map @published_backends : meta l4proto . th dport map @published_targets`;
  const counter = kind === 'k' ? `${family} daddr @counted` : 'meta l4proto . th dport @counted_ports';
  return chainBody(name, [...(counted ? [counter] : []), `dnat ${family} to ${target}`]);
}

const holdRules = [`meta mark ${heldMark} accept`, `log group ${heldGroup} snaplen 65535 queue-threshold 1`, 'drop'];

/** True for the name of a chain that comes and goes: with the number of backends, or with what local tasks reach. */
export function isDispatchChain(name: string): boolean {
  return /^([kp](0|c?([1-9][0-9]*|s))|mi?(_.*)?)$/.test(name);
}

/** Commands that replace our table of a family as a whole, in one transaction. */
export function replaceTable(
  family: FamilyName,
  declarations: Declarations,
  elements: Iterable<readonly [string, string]>,
): string {
  const bodies = [...declarations.values()].map((body) => `  ${body}\n`).join('');
  return `${removeTable(family)}table ${family} ${tableName} {\n${bodies}}\n${perSet(family, 'add', elements)}`;
}

/** Commands that remove our table of a family, whether it is there or not. */
export function removeTable(family: FamilyName): string {
  return `table ${family} ${tableName} { }\ndelete table ${family} ${tableName}\n`;
}

/** Commands for a change of elements and dispatch chains, in one transaction. */
export function updateTable(change: {
  readonly family: FamilyName;
  readonly addChains: readonly (readonly [string, string])[];
  readonly removeElements: readonly string[];
  readonly addElements: readonly (readonly [string, string])[];
  readonly removeChains: readonly string[];
}): string {
  const { family } = change;
  return [
    ...change.addChains.map(([, body]) => `table ${family} ${tableName} {\n  ${body}\n}\n`),
    perSet(
      family,
      'delete',
      change.removeElements.map((element) => [element, '']),
    ),
    perSet(family, 'add', change.addElements),
    ...change.removeChains.map((name) => `delete chain ${family} ${tableName} ${name}\n`),
  ].join('');
}

function perSet(family: FamilyName, verb: 'add' | 'delete', elements: Iterable<readonly [string, string]>): string {
  const bySet = new Map<string, string[]>();
  for (const [element, value] of elements) {
    const space = element.indexOf(' ');
    const set = element.slice(0, space);
    const list = bySet.get(set);
    const text = value === '' ? element.slice(space + 1) : `${element.slice(space + 1)} : ${value}`;
    if (list) list.push(text);
    else bySet.set(set, [text]);
  }
  let commands = '';
  for (const [set, list] of bySet) commands += `${verb} element ${family} ${tableName} ${set} { ${list.join(', ')} }\n`;
  return commands;
}
