/** The text of our nftables table: its maps, its base chains, and one dispatch chain per number of backends. */
import { gatewayOf } from './cidr.ts';
import { zones } from './return-path.ts';

/** The one table we own (family ip). Everything outside of it is somebody else's. */
export const tableName = 'gantry';

/** What a set, map or chain is called, to its body in nft's language. */
export type Declarations = ReadonlyMap<string, string>;

/** The sets and maps, in an order in which they can be made. Keys and values: net/plan/balance.ts, net/plan/return-path.ts. */
const sets: Record<string, string> = {
  services: 'map services { type ipv4_addr : verdict; }',
  backends: 'map backends { typeof ip daddr . numgen random mod 65536 : ip daddr; }',
  published: 'map published { type inet_proto . inet_service : verdict; }',
  // Address and port in two maps: nft 1.0.6 finds "ip daddr . th dport" as a map's data contradictory once it is in the kernel.
  published_backends: 'map published_backends { typeof meta l4proto . th dport . numgen random mod 65536 : ip daddr; }',
  published_targets: 'map published_targets { type inet_proto . inet_service : inet_service; }',
  refused: 'set refused { type inet_proto . inet_service; }',
  hairpin: 'set hairpin { type ipv4_addr . ipv4_addr; }',
  hosts: 'set hosts { type ipv4_addr; }',
  ingress: 'map ingress { typeof ether saddr : ct original zone; }',
  reply_marks: 'map reply_marks { typeof ct original zone : meta mark; }',
  direct: 'set direct { type ipv4_addr; flags interval; }',
  returning: 'set returning { type ipv4_addr . ipv4_addr; flags interval; }',
};

/**
 * The table without its elements. Told in packets:
 * - a VIP, or a published port of one of the node's own addresses, becomes a backend in prerouting (output for the host's
 *   own); what is still a VIP behind that has no backend and is refused; so are published ports without one;
 * - what tasks send out of the cluster is masqueraded; within the cluster addresses stay as they are;
 * - a client from outside keeps its address on the way to a backend on another node. That node knows the node it came in
 *   by from the packet's MAC, gives its connections a conntrack zone of their own (another node may send the same client's
 *   same port), and marks the replies, which policy routing leads back there. It is masqueraded where that cannot work:
 *   towards a node that is not known to be on the link, and back to the very host that it came from;
 * - a task that reaches itself by its VIP is masqueraded, or it would take its own packet for a forgery;
 * - tasks are reached from outside by what is published alone: not routed to directly, except by the cluster's hosts.
 */
export function declarationsOf(
  wanted: { readonly subnet: string; readonly network: string; readonly vipNetwork: string; readonly bridge: string },
  dispatchChains: Iterable<string>,
): Declarations {
  const { subnet, network, vipNetwork } = wanted;
  const bridge = `"${wanted.bridge}"`;
  const gateway = gatewayOf(subnet);
  const declarations = new Map<string, string>(Object.entries(sets));
  for (const name of [...dispatchChains].sort()) declarations.set(name, dispatchChain(name));
  const chain = (name: string, rules: readonly string[]) => {
    declarations.set(name, `chain ${name} {\n${rules.map((rule) => `    ${rule};\n`).join('')}  }`);
  };
  const published = `fib daddr type local ip daddr != ${gateway} meta l4proto . th dport vmap @published`;
  const refuseVips = [`ip daddr ${vipNetwork} meta l4proto tcp reject with tcp reset`, `ip daddr ${vipNetwork} reject`];
  chain('incoming', [
    'type filter hook prerouting priority -300; policy accept',
    `ip saddr != ${network} ip daddr ${subnet} ct original zone set ether saddr map @ingress`,
  ]);
  chain('replies', [
    'type filter hook prerouting priority -150; policy accept',
    `iifname ${bridge} ct direction reply meta mark set ct original zone map @reply_marks`,
  ]);
  chain('prerouting', ['type nat hook prerouting priority -100; policy accept', 'ip daddr vmap @services', published]);
  chain('output', [
    'type nat hook output priority -100; policy accept',
    'ip daddr vmap @services',
    `ip daddr != 127.0.0.0/8 ${published}`,
  ]);
  chain('postrouting', [
    'type nat hook postrouting priority 100; policy accept',
    'ip saddr . ip daddr @hairpin masquerade',
    `ip saddr ${subnet} ip daddr != ${network} oifname != ${bridge} masquerade`,
    `ct status dnat ip saddr != ${network} ip daddr ${network} oifname != ${bridge} ip daddr != @direct masquerade`,
    'ct status dnat ip saddr . ip daddr @returning masquerade',
  ]);
  chain('forward', [
    'type filter hook forward priority 0; policy accept',
    'ct state established,related accept',
    // Of a connection that was forgotten with its backend: picked up in the middle, it would be led to another one.
    'ct state new ct status dnat tcp flags & (fin | syn | rst | ack) != syn reject with tcp reset',
    ...refuseVips,
    `iifname ${bridge} ip saddr != ${subnet} drop`,
    'ct status dnat accept',
    `oifname ${bridge} ct original zone ${zones} accept`,
    `ip daddr ${network} ip saddr != ${network} ip saddr != @hosts drop`,
  ]);
  chain('input', [
    'type filter hook input priority 0; policy accept',
    `fib daddr type local ip daddr != ${gateway} meta l4proto tcp meta l4proto . th dport @refused reject with tcp reset`,
    `fib daddr type local ip daddr != ${gateway} meta l4proto . th dport @refused reject`,
  ]);
  chain('local', [
    'type filter hook output priority 0; policy accept',
    ...refuseVips,
    `oifname ${bridge} icmp type redirect drop`,
    'ct status dnat icmp type redirect drop',
  ]);
  return declarations;
}

/** kN: one of a VIP's N backends at random; pN: one of a published port's. */
export function dispatchChain(name: string): string {
  const oneOf = `numgen random mod ${name.slice(1)}`;
  const target = name.startsWith('k')
    ? `ip daddr . ${oneOf} map @backends`
    : `meta l4proto . th dport . ${oneOf} map @published_backends : meta l4proto . th dport map @published_targets`;
  return `chain ${name} {\n    dnat ip to ${target};\n  }`;
}

/** True for the name of a dispatch chain, which comes and goes with the number of backends. */
export function isDispatchChain(name: string): boolean {
  return /^[kp][1-9][0-9]*$/.test(name);
}

/** Commands that replace our table as a whole, in one transaction. */
export function replaceTable(declarations: Declarations, elements: Iterable<readonly [string, string]>): string {
  const bodies = [...declarations.values()].map((body) => `  ${body}\n`).join('');
  return `${removeTable()}table ip ${tableName} {\n${bodies}}\n${addElements(elements)}`;
}

/** Commands that remove our table, whether it is there or not. */
export function removeTable(): string {
  return `table ip ${tableName} { }\ndelete table ip ${tableName}\n`;
}

/** Commands for a change of elements and dispatch chains, in one transaction. */
export function updateTable(change: {
  readonly addChains: readonly string[];
  readonly removeElements: readonly string[];
  readonly addElements: readonly (readonly [string, string])[];
  readonly removeChains: readonly string[];
}): string {
  return [
    ...change.addChains.map((name) => `table ip ${tableName} {\n  ${dispatchChain(name)}\n}\n`),
    perSet(
      'delete',
      change.removeElements.map((element) => [element, '']),
    ),
    addElements(change.addElements),
    ...change.removeChains.map((name) => `delete chain ip ${tableName} ${name}\n`),
  ].join('');
}

function addElements(elements: Iterable<readonly [string, string]>): string {
  return perSet('add', elements);
}

function perSet(verb: 'add' | 'delete', elements: Iterable<readonly [string, string]>): string {
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
  for (const [set, list] of bySet) commands += `${verb} element ip ${tableName} ${set} { ${list.join(', ')} }\n`;
  return commands;
}
