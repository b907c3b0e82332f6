/** Who listens in a network namespace: the kernel's own table of sockets, as /proc shows it. */
import fs from 'node:fs';
import { openInNetns } from '#net/host/netns.ts';
import type { Netns } from './sockets.ts';

export interface Listener {
  readonly protocol: 'tcp' | 'udp';
  readonly port: number;
  /** `0.0.0.0`, `::`, `127.0.0.1`, an address of the namespace. */
  readonly address: string;
}

/** TCP sockets that listen, and UDP sockets that are bound and not connected. */
export function listeners(netns: Netns): readonly Listener[] {
  const read = () =>
    (['tcp', 'tcp6', 'udp', 'udp6'] as const).flatMap((table) => {
      try {
        return parseSockets(fs.readFileSync(`/proc/thread-self/net/${table}`, 'latin1'), table);
      } catch (error) {
        // A kernel without IPv6 has no such table.
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
        throw error;
      }
    });
  return netns === undefined ? read() : openInNetns(netns, read);
}

const LISTEN = '0A';
const UNCONNECTED = '07';

/** The rows of /proc/net/{tcp,udp}[6] that listen. */
export function parseSockets(text: string, table: 'tcp' | 'tcp6' | 'udp' | 'udp6'): Listener[] {
  const protocol = table.startsWith('tcp') ? 'tcp' : 'udp';
  return text
    .split('\n')
    .slice(1)
    .flatMap((line) => {
      const [, local = '', , state] = line.trim().split(/\s+/);
      if (state !== (protocol === 'tcp' ? LISTEN : UNCONNECTED)) return [];
      const [address = '', port = ''] = local.split(':');
      return [{ protocol, port: Number.parseInt(port, 16), address: readAddress(address) }];
    });
}

/** Words of 32 bits in host order. */
function readAddress(hex: string): string {
  const bytes = Buffer.from(hex, 'hex');
  for (let offset = 0; offset + 4 <= bytes.length; offset += 4) bytes.subarray(offset, offset + 4).reverse();
  if (bytes.length === 4) return [...bytes].join('.');
  if (bytes.every((byte) => byte === 0)) return '::';
  if (bytes.subarray(0, 15).every((byte) => byte === 0) && bytes[15] === 1) return '::1';
  if (bytes.subarray(0, 10).every((byte) => byte === 0) && bytes.readUInt16BE(10) === 0xffff)
    return [...bytes.subarray(12)].join('.');
  return (bytes.toString('hex').match(/.{4}/g) ?? []).join(':');
}

/** True where packets from another machine can arrive. */
export function isOpen({ address }: Listener): boolean {
  return address !== '::1' && !address.startsWith('127.');
}
