/** Ends the sockets of local tasks whose other end is gone: who waits for a dead backend hears of it at once instead of in minutes. */

import { addressBytes, addressText, attributesOf, Netlink } from './netlink.ts';
import { openInNetns } from './netns.ts';

const NETLINK_SOCK_DIAG = 4;
const SOCK_DIAG_BY_FAMILY = 20;
const SOCK_DESTROY = 21;
const IPPROTO_TCP = 6;
const AF_INET = 2;
const AF_INET6 = 10;
const noCookie = Buffer.alloc(8, 0xff);
/** How many go to the kernel at once: its answers must fit the socket's receive buffer. */
const batchSize = 32;

/**
 * TCP states (include/net/tcp_states.h) in which the other end may still be waited for: established, SYN sent or received,
 * FIN sent. Who has had the other's FIN (CLOSE_WAIT and later) has been told, and may have data left to read; and the
 * kernel answers with the listening socket where there is no connection, which is nobody's to end.
 */
const waiting: ReadonlySet<number> = new Set([1, 2, 3, 4, 5]);

/** A connection as one of its ends has it. */
export interface SocketEnd {
  readonly local: string;
  readonly localPort: number;
  readonly remote: string;
  readonly remotePort: number;
}

/** The two ends of a tracked TCP connection, from its tuples as ctnetlink gives them (CTA_TUPLE_ORIG, _REPLY); [] for another protocol. */
export function endsOf(entry: { readonly original: Buffer; readonly reply: Buffer }): readonly SocketEnd[] {
  return [entry.original, entry.reply].flatMap((tuple): SocketEnd[] => {
    const parts = attributesOf(tuple);
    const addresses = attributesOf(parts.get(1) ?? Buffer.alloc(0));
    const protocol = attributesOf(parts.get(2) ?? Buffer.alloc(0));
    const [local, remote] = [addresses.get(1) ?? addresses.get(3), addresses.get(2) ?? addresses.get(4)];
    const [localPort, remotePort] = [protocol.get(2)?.readUInt16BE(0), protocol.get(3)?.readUInt16BE(0)];
    if (protocol.get(1)?.[0] !== IPPROTO_TCP || !local || !remote) return [];
    if (localPort === undefined || remotePort === undefined) return [];
    return [{ local: textOf(local), localPort, remote: textOf(remote), remotePort }];
  });
}

/** IPv6 in full, unabbreviated groups: `fd00:0:0:0:0:0:0:1`. */
function textOf(bytes: Buffer): string {
  if (bytes.length === 4) return addressText(bytes);
  return Array.from({ length: 8 }, (_, index) => bytes.readUInt16BE(index * 2).toString(16)).join(':');
}

/**
 * Ends those of `ends` that are sockets of the namespace pinned at `netnsPath` (undefined: of this process's own) and still
 * wait for the other end: whoever reads or writes them gets ECONNABORTED. How many there were. The kernel's work is done on a
 * thread of the pool. Faults: `not-found` (no such namespace), `unsupported` (a kernel without INET_DIAG_DESTROY).
 */
export async function destroySockets(netnsPath: string | undefined, ends: readonly SocketEnd[]): Promise<number> {
  const open = () => new Netlink(NETLINK_SOCK_DIAG);
  const netlink = netnsPath === undefined ? open() : openInNetns(netnsPath, open);
  let destroyed = 0;
  try {
    for (let start = 0; start < ends.length; start += batchSize) {
      destroyed += await destroyBatch(netlink, ends.slice(start, start + batchSize));
    }
  } finally {
    netlink.close();
  }
  return destroyed;
}

async function destroyBatch(netlink: Netlink, ends: readonly SocketEnd[]): Promise<number> {
  const name = ({ local, localPort, remote, remotePort }: SocketEnd) =>
    `the connection ${local}:${localPort} to ${remote}:${remotePort}`;
  const found = await netlink.exchangeOnThread(
    ends.map((end) => ({
      what: `looking for ${name(end)}`,
      type: SOCK_DIAG_BY_FAMILY,
      flags: 0,
      body: request(end, noCookie),
    })),
  );
  const sockets = found.flatMap(({ answer, fault }, index) => {
    if (fault && fault.code !== 'not-found') throw fault;
    return answer && waiting.has(answer[1] ?? 0) ? [{ end: ends[index]!, cookie: answer.subarray(44, 52) }] : [];
  });
  const ended = await netlink.exchangeOnThread(
    sockets.map(({ end, cookie }) => ({
      what: `ending ${name(end)}`,
      type: SOCK_DESTROY,
      flags: 0,
      body: request(end, cookie),
    })),
  );
  // Gone between the two: it has ended by itself.
  const failed = ended.find(({ fault }) => fault && fault.code !== 'not-found');
  if (failed?.fault) throw failed.fault;
  return ended.filter(({ fault }) => !fault).length;
}

/** struct inet_diag_req_v2 of include/uapi/linux/inet_diag.h. */
function request(end: SocketEnd, cookie: Buffer): Buffer {
  const body = Buffer.alloc(56);
  const [local, remote] = [bytesOf(end.local), bytesOf(end.remote)];
  body[0] = local.length === 4 ? AF_INET : AF_INET6;
  body[1] = IPPROTO_TCP;
  body.writeUInt32LE(0xffffffff, 4);
  body.writeUInt16BE(end.localPort, 8);
  body.writeUInt16BE(end.remotePort, 10);
  local.copy(body, 12);
  remote.copy(body, 28);
  cookie.copy(body, 48);
  return body;
}

function bytesOf(address: string): Buffer {
  if (!address.includes(':')) return addressBytes(address);
  const bytes = Buffer.alloc(16);
  for (const [index, group] of address.split(':').entries()) bytes.writeUInt16BE(Number.parseInt(group, 16), index * 2);
  return bytes;
}
