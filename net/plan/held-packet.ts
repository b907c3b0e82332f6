/** Packets that wait for a task of their service: whose they are, and how they are put so that they can be sent again. Pure. */
import { formatAddress6 } from './address6.ts';
import type { FamilyName } from './family.ts';

export interface Packet {
  readonly family: FamilyName;
  readonly source: string;
  readonly destination: string;
  /** tcp, udp, sctp, or its number where it has no ports. */
  readonly protocol: string;
  /** 0 without ports. */
  readonly sourcePort: number;
  readonly destinationPort: number;
  /** From its IP header on. */
  readonly bytes: Uint8Array;
}

const protocols: Readonly<Record<number, string>> = { 6: 'tcp', 17: 'udp', 132: 'sctp' };
/** Where in a segment its checksum stands. */
const checksumAt: Readonly<Record<number, number>> = { 6: 16, 17: 6 };

interface Layout {
  readonly family: FamilyName;
  readonly source: Uint8Array;
  readonly destination: Uint8Array;
  readonly protocol: number;
  /** Where its segment begins. */
  readonly segment: number;
}

/** Undefined for what is no whole packet; IPv6 with extension headers is one without ports. */
export function parsePacket(bytes: Uint8Array): Packet | undefined {
  const layout = layoutOf(bytes);
  if (!layout) return undefined;
  const { family, protocol, segment } = layout;
  const name = protocols[protocol];
  const port = (at: number) => (name === undefined ? 0 : ((bytes[at] ?? 0) << 8) | (bytes[at + 1] ?? 0));
  return {
    family,
    source: textOf(layout.source),
    destination: textOf(layout.destination),
    protocol: name ?? String(protocol),
    sourcePort: port(segment),
    destinationPort: port(segment + 2),
    bytes,
  };
}

function layoutOf(bytes: Uint8Array): Layout | undefined {
  const version = (bytes[0] ?? 0) >> 4;
  if (version === 4 && bytes.length >= 20) {
    const segment = ((bytes[0] as number) & 0xf) * 4;
    if (segment < 20 || bytes.length < segment) return undefined;
    const [source, destination] = [bytes.subarray(12, 16), bytes.subarray(16, 20)];
    return { family: 'ip', source, destination, protocol: bytes[9] as number, segment };
  }
  if (version === 6 && bytes.length >= 40) {
    const [source, destination] = [bytes.subarray(8, 24), bytes.subarray(24, 40)];
    return { family: 'ip6', source, destination, protocol: bytes[6] as number, segment: 40 };
  }
  return undefined;
}

/** Of a connection that begins: sent again and again while nobody answers, and one of them is enough. */
export function flowOf({ protocol, source, sourcePort, destination, destinationPort }: Packet): string | undefined {
  return protocol === 'tcp' ? `${source} ${sourcePort} ${destination} ${destinationPort}` : undefined;
}

/** The packet with its whole checksum: what a task of this host sends has only the begin of one, which a network card was to finish. */
export function withChecksum(bytes: Uint8Array): Uint8Array {
  const layout = layoutOf(bytes);
  const at = layout && checksumAt[layout.protocol];
  if (!layout || at === undefined || bytes.length < layout.segment + at + 2) return bytes;
  const { source, destination, protocol, segment } = layout;
  const whole = Uint8Array.from(bytes);
  const length = bytes.length - segment;
  whole[segment + at] = 0;
  whole[segment + at + 1] = 0;
  let sum = protocol + length;
  for (const part of [source, destination, whole.subarray(segment)]) sum += sumOf(part);
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  // For UDP nothing but zeros would mean that there is no checksum.
  const checksum = ~sum & 0xffff || 0xffff;
  whole[segment + at] = checksum >> 8;
  whole[segment + at + 1] = checksum & 0xff;
  return whole;
}

function sumOf(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += ((bytes[at] as number) << 8) | (bytes[at + 1] ?? 0);
  return sum;
}

function textOf(address: Uint8Array): string {
  return address.length === 16 ? formatAddress6(address) : address.join('.');
}
