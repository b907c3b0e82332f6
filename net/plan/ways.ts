/** Which way packets go between two nodes: decided alike at both ends, with the reason in words. */
import { Fault } from '#proto/kernel/errors.ts';
import type { Peer } from '#proto/model/assignment.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import { tryAddress6 } from './address6.ts';
import { formatCidr, nthAddress, parseCidr, tryAddress } from './cidr.ts';
import { embed6 } from './cidr6.ts';
import type { Family } from './family.ts';
import { macOf } from './mac.ts';
import {
  type Tunnel,
  type TunnelDevice,
  tunnelName,
  type WireGuard,
  wireguardPort,
  withinTunnel,
  withinWireGuard,
} from './tunnel.ts';

/** What a node's end of a way is told by. */
export type End = Pick<Peer, 'address' | 'subnet' | 'link' | 'segment' | 'wireguardKey'>;
export type WaySettings = Pick<ClusterConfig, 'encapsulation' | 'encryption'>;

/**
 * `direct`: by a route over the link both are on. `tunnel`: in VXLAN. `encrypted`: in VXLAN within WireGuard. `none`: not at
 * all, for it would have to be in clear.
 */
export type WayKind = 'direct' | 'tunnel' | 'encrypted' | 'none';

export interface Decision {
  readonly kind: WayKind;
  /** Why, as people say it: "both are on 10.90.0.0/24". The same words at both ends. */
  readonly reason: string;
}

/** The way between two nodes; the same whichever is called the first. */
export function wayBetween(one: End, other: End, cluster: WaySettings): Decision {
  if (cluster.encryption === 'wireguard') {
    const without = [one, other].filter((end) => !isKey(end.wireguardKey)).map((end) => end.address);
    if (without.length === 0) return { kind: 'encrypted', reason: 'the cluster is encrypted' };
    const who = without.sort().join(' and ');
    return { kind: 'none', reason: `the cluster is encrypted, and ${who} cannot do WireGuard` };
  }
  if (cluster.encapsulation === 'never') return { kind: 'direct', reason: 'encapsulation is never' };
  if (cluster.encapsulation === 'always') return { kind: 'tunnel', reason: 'encapsulation is always' };
  if (one.segment !== other.segment) {
    const names = [one, other].map(({ segment }) => segment || 'none').sort();
    return { kind: 'tunnel', reason: `their gantry.link labels differ: ${names.join(', ')}` };
  }
  const links = [one, other].map(({ link }) => linkOf(link));
  if (links[0] !== undefined && links[0] === links[1]) return { kind: 'direct', reason: `both are on ${links[0]}` };
  const texts = links.map((link) => link ?? 'an unknown link').sort();
  return { kind: 'tunnel', reason: `they are on ${texts.join(' and ')}` };
}

/** A node's own word, and it becomes a line of WireGuard's configuration. */
function isKey(text: string): boolean {
  return /^[A-Za-z0-9+/]{43}=$/.test(text);
}

/** The range of a link; undefined where it is unknown. A node's own word: anything may stand in it. */
function linkOf(link: string): string | undefined {
  try {
    return formatCidr(parseCidr(link));
  } catch {
    return undefined;
  }
}

/** The way to a peer, with what the kernel needs for it. */
export interface PeerWay extends Decision {
  readonly peer: Peer;
  /** The peer's, without host bits. */
  readonly subnet: string;
  /** What routes to the peer lead to: its address, or its end of the tunnel. Of no meaning for `none`. */
  readonly gateway: string;
  /** The link that `gateway` is on whatever its address says; undefined: the link of that address. */
  readonly link: string | undefined;
  /** Widest packet, bytes; undefined: as wide as the link. */
  readonly mtu: number | undefined;
  /** Of the tunnel's end at the peer; undefined where there is none. */
  readonly mac: string | undefined;
  /** Its end of the tunnel, whether or not packets of IPv4 take it. */
  readonly end: string;
  /** The address that tunnel packets are sent to; '' where there are none. */
  readonly underlay: string;
  /** The way of IPv6; undefined where there is none. */
  readonly six: Pick<PeerWay, 'gateway' | 'link' | 'mtu'> | undefined;
}

/** What IPv6 takes: the cluster's /96, and this node's address on its link, '' where it has none. */
export interface Six {
  readonly network6: string;
  readonly address6: string;
}

/** No packet of IPv6 needs to be narrower. */
const narrowest6 = 1280;

/** What a node knows of the wires. */
export interface Wires {
  /** Width of the link that has the node's address, bytes. */
  readonly linkMtu: number;
  /** Widest packet that was seen to reach an address, bytes; without an entry nothing is known. */
  readonly mtus: ReadonlyMap<string, number>;
  /** This node's public WireGuard key; empty: it cannot do WireGuard. */
  readonly wireguardKey: string;
}

/** A node, its peers, and what its cluster says of ways; a NetworkWanted fits. */
export interface WaysInput extends Omit<End, 'wireguardKey'>, WaySettings {
  readonly nodeId: string;
  readonly peers: readonly Peer[];
}

/** The ways to all peers that have an address and a subnet. `six`: where IPv6 is used. */
export function waysOf(input: WaysInput, wires: Wires, six?: Six): readonly PeerWay[] {
  const ways: PeerWay[] = [];
  const own = { ...input, wireguardKey: wires.wireguardKey };
  const ownSubnet = formatCidr(parseCidr(input.subnet));
  for (const peer of input.peers) {
    if (peer.nodeId === input.nodeId || peer.subnet === '' || tryAddress(peer.address) === undefined) continue;
    const subnet = formatCidr(parseCidr(peer.subnet));
    if (subnet === ownSubnet) continue;
    const way = wayTo({ ...peer, subnet }, wayBetween(own, peer, input), wires);
    ways.push(six ? withSix(way, six, wires) : way);
  }
  return ways;
}

function wayTo(peer: Peer, decision: Decision, wires: Wires): PeerWay {
  const { subnet, address } = peer;
  const end = endOf(subnet);
  const outer = Math.min(wires.mtus.get(address) ?? wires.linkMtu, wires.linkMtu);
  const none = { link: undefined, mac: undefined, underlay: '', six: undefined };
  const direct = { ...decision, peer, subnet, end, gateway: address, ...none };
  const tunnelled = { ...direct, gateway: end, link: tunnelName, mac: macOf(end) };
  switch (decision.kind) {
    case 'none':
      return { ...direct, mtu: undefined };
    case 'direct':
      return { ...direct, mtu: outer < wires.linkMtu ? outer : undefined };
    case 'tunnel':
      return { ...tunnelled, mtu: withinTunnel(outer), underlay: address };
    case 'encrypted': {
      // What WireGuard lets through is measured, too: there no firewall on the way hides the answers.
      const inner = Math.min(wires.mtus.get(end) ?? wires.linkMtu, withinWireGuard(outer));
      return { ...tunnelled, mtu: withinTunnel(inner), underlay: end };
    }
  }
}

/** Where one of two on a link has no IPv6 address there, IPv6 takes the tunnel. */
function withSix(way: PeerWay, { network6, address6 }: Six, wires: Wires): PeerWay {
  const { kind, peer, end } = way;
  if (kind === 'none') return way;
  const both = [address6, peer.address6].every((address) => tryAddress6(address) !== undefined);
  if (kind === 'direct' && both) return { ...way, six: { gateway: peer.address6, link: undefined, mtu: way.mtu } };
  const mtu = way.mtu !== undefined && kind !== 'direct' ? way.mtu : withinTunnel(way.mtu ?? wires.linkMtu);
  const six = { gateway: embed6(network6, end), link: tunnelName, mtu: Math.max(mtu, narrowest6) };
  return { ...way, six, underlay: way.underlay || peer.address };
}

/** Where two ends of WireGuard begin to talk at the same moment, both wait for five seconds: the later one lets the other begin. */
const laterMs = 1_000;

/** An address whose path is measured, over a link of that width; not before `afterMs`. */
export interface Measured {
  readonly address: string;
  readonly link: number;
  readonly afterMs: number;
}

/** The addresses whose paths are measured for these ways. */
export function measuredFor(ways: readonly PeerWay[], ownSubnet: string, linkMtu: number): readonly Measured[] {
  const own = parseCidr(ownSubnet).base;
  return ways.flatMap(({ kind, peer, subnet, underlay }) => {
    if (kind === 'none') return [];
    const outer = { address: peer.address, link: linkMtu, afterMs: 0 };
    if (kind !== 'encrypted') return [outer];
    const afterMs = own > parseCidr(subnet).base ? laterMs : 0;
    return [outer, { address: underlay, link: withinWireGuard(linkMtu), afterMs }];
  });
}

/** The VXLAN device that these ways need; undefined where none is a tunnel. */
export function tunnelOf(
  input: WaysInput,
  ways: readonly PeerWay[],
  wires: Wires,
  families: readonly Family[],
): Tunnel | undefined {
  const tunnelled = ways.filter(({ underlay }) => underlay !== '');
  if (tunnelled.length === 0) return undefined;
  const own = endOf(input.subnet);
  const encrypted = input.encryption === 'wireguard';
  const device: TunnelDevice = {
    local: encrypted ? own : input.address,
    mac: macOf(own),
    mtu: withinTunnel(encrypted ? withinWireGuard(wires.linkMtu) : wires.linkMtu),
    up: true,
    addresses: families.map(({ name, address }) => `${address(own)}/${name === 'ip' ? 32 : 128}`),
  };
  return {
    device,
    forwarding: new Map(tunnelled.map(({ end, underlay }) => [macOf(end), underlay])),
    neighbours: new Map(
      tunnelled.flatMap(({ end }) => families.map(({ address }) => [address(end) ?? end, macOf(end)] as const)),
    ),
  };
}

/** The WireGuard device that these ways need; undefined where none is encrypted. */
export function wireguardOf(input: WaysInput, ways: readonly PeerWay[], wires: Wires): WireGuard | undefined {
  const encrypted = ways.filter(({ kind }) => kind === 'encrypted');
  if (encrypted.length === 0) return undefined;
  const peers = new Map(
    // Its tasks answer other hosts, who send with the address of their end, without VXLAN: that address is by WireGuard.
    encrypted.map(({ peer, subnet }) => [
      peer.wireguardKey,
      { endpoint: `${peer.address}:${wireguardPort}`, allowed: subnet },
    ]),
  );
  const addresses = [`${endOf(input.subnet)}/32`];
  return { mtu: withinWireGuard(wires.linkMtu), up: true, addresses, port: wireguardPort, peers };
}

/** What the operator has to know: peers that there is no way to. */
export function waysMissing(input: WaysInput, ways: readonly PeerWay[]): readonly Fault[] {
  const missing = ways.filter(({ kind }) => kind === 'none');
  if (missing.length === 0) return [];
  const reasons = new Map(missing.map(({ peer, reason }) => [reason, peer.name]));
  return [...reasons].map(
    ([reason, name]) =>
      new Fault('precondition', `${name} is not reached from ${input.address}: ${reason}`, {
        remedy:
          'install wireguard-tools there, and wireguard-go where the kernel has no WireGuard, then restart the agent; or gantry cluster set encryption=off',
      }),
  );
}

/**
 * A node's end of all its tunnels: the first address of its subnet, which no task gets. It is the address within VXLAN, and
 * within WireGuard the one that VXLAN is sent to.
 */
export function endOf(subnet: string): string {
  return nthAddress(subnet, 0);
}
