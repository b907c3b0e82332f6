/** The tunnels of a node as values: one VXLAN device for all peers, and one WireGuard device beneath it where the cluster is encrypted. */

export const tunnelName = 'gantry-vx';
export const wireguardName = 'gantry-wg';
/** VXLAN's number of our network, and the UDP port it is sent to: not 4789, where Swarm's and flannel's are. */
export const tunnelId = 0x47;
export const tunnelPort = 4790;
export const wireguardPort = 51847;
/**
 * Bytes that each adds to a packet: VXLAN over IPv4 with the inner Ethernet header; WireGuard over IPv4, which fills up to
 * sixteen, wireguard-go also what is of that size already.
 */
const overhead = { vxlan: 50, wireguard: 60 + 16 } as const;
/** No IPv4 route is narrower. */
const narrowest = 552;

/** The VXLAN device: it learns nothing, all it knows is here. */
export interface Tunnel {
  readonly device: TunnelDevice;
  /** Where frames for a MAC are sent: MAC to underlay address. */
  readonly forwarding: ReadonlyMap<string, string>;
  /** The MACs of the peers' ends: address to MAC. */
  readonly neighbours: ReadonlyMap<string, string>;
}

export interface TunnelDevice {
  /** What the packets' source is; the device is made anew where it changes. */
  readonly local: string;
  readonly mac: string;
  readonly mtu: number;
  readonly up: boolean;
  /** CIDRs with host bits. */
  readonly addresses: readonly string[];
}

/** The WireGuard device; its private key is the host's matter. */
export interface WireGuard {
  readonly mtu: number;
  readonly up: boolean;
  /** CIDRs with host bits. */
  readonly addresses: readonly string[];
  readonly port: number;
  /** By public key. */
  readonly peers: ReadonlyMap<string, WireGuardPeer>;
}

export interface WireGuardPeer {
  /** Where it listens: `10.90.0.2:51847`. */
  readonly endpoint: string;
  /** CIDR that it may send from. */
  readonly allowed: string;
}

/** The widest packet that fits into VXLAN on a path of that width. */
export function withinTunnel(mtu: number): number {
  return Math.max(mtu - overhead.vxlan, narrowest);
}

/** The widest packet that fits into WireGuard on a path of that width. */
export function withinWireGuard(mtu: number): number {
  return Math.max(Math.floor((mtu - overhead.wireguard) / 16) * 16, narrowest);
}

/** True where the device can be made right without making it anew. */
export function sameMake(one: TunnelDevice, other: TunnelDevice): boolean {
  return one.local === other.local;
}

/** A text that is equal for equal configurations. */
export function describeWireGuard({ mtu, up, addresses, port, peers }: WireGuard): string {
  const texts = [...peers].map(([key, { endpoint, allowed }]) => `${key} ${endpoint} ${allowed}`).sort();
  return [`${port} ${mtu} ${up} ${addresses}`, ...texts].join('\n');
}
