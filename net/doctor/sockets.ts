/** The sockets that probes send with: opened in any namespace, never blocking, read by looking again every few milliseconds. */
import os from 'node:os';
import koffi from 'koffi';
import { closeFd, errnoOf, linkAddress, MSG_DONTWAIT, receive, send, setOption } from '#net/host/libc.ts';
import { openInNetns } from '#net/host/netns.ts';
import { arpRequest, ETH_P_ARP } from '#net/host/seek.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';

const libc = koffi.load('libc.so.6');
const c = {
  socket: libc.func('int socket(int, int, int)'),
  bind: libc.func('int bind(int, const void *, uint32)'),
  connect: libc.func('int connect(int, const void *, uint32)'),
  sendto: libc.func('long sendto(int, const void *, unsigned long, int, const void *, uint32)'),
  getsockopt: libc.func('int getsockopt(int, int, int, _Out_ void *, _Inout_ uint32 *)'),
  poll: libc.func('int poll(_Inout_ void *, unsigned long, int)'),
};

const AF_INET = 2;
const AF_PACKET = 17;
const SOCK = { stream: 1, datagram: 2, raw: 3, nonBlocking: 0o4000, closeOnExec: 0o2000000 } as const;
const IPPROTO_ICMP = 1;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_ERROR = 4;
const SO_LINGER = 13;
const IP_MTU_DISCOVER = 10;
/** Never fragment, and do not believe what was learnt of the path. */
const IP_PMTUDISC_PROBE = 3;
const POLLOUT = 4;
const lookEveryMs = 4;

/** Where a probe starts: the path of a pinned namespace; undefined: the host's. */
export type Netns = string | undefined;

/** Whoever is done closes it. */
interface Socket extends Disposable {
  readonly fd: number;
}

function open(netns: Netns, family: number, type: number, protocol: number): Socket {
  const make = () => c.socket(family, type | SOCK.nonBlocking | SOCK.closeOnExec, protocol);
  const fd: number = netns === undefined ? make() : openInNetns(netns, make);
  if (fd < 0) throw new Fault('internal', `no socket for a probe: errno ${koffi.errno()}`);
  return { fd, [Symbol.dispose]: () => closeFd(fd) };
}

function inetAddress(address: string, port: number): Buffer {
  const text = Buffer.alloc(16);
  text.writeUInt16LE(AF_INET, 0);
  text.writeUInt16BE(port, 2);
  Buffer.from(address.split('.').map(Number)).copy(text, 4);
  return text;
}

function errnoName(value = koffi.errno()): string {
  const found = Object.entries(os.constants.errno).find(([, number]) => number === value);
  return found?.[0] ?? `errno ${value}`;
}

/** What `look` gives, as soon as it gives something; undefined when the time is up. */
async function awaited<T>(clock: Clock, timeoutMs: number, look: () => T | undefined): Promise<T | undefined> {
  const until = clock.monotonic() + timeoutMs;
  for (;;) {
    const found = look();
    if (found !== undefined) return found;
    if (clock.monotonic() >= until) return undefined;
    await clock.sleep(lookEveryMs);
  }
}

/** The datagrams that have arrived, each a copy. */
function* arrived(fd: number): Generator<Buffer> {
  const buffer = Buffer.alloc(1 << 16);
  for (;;) {
    let length: number;
    try {
      length = receive(fd, buffer, MSG_DONTWAIT);
    } catch (error) {
      if (errnoOf(error) === 'EAGAIN') return;
      if (errnoOf(error) === undefined) throw error;
      continue; // A pending error of the socket is told by one receive, and is over then.
    }
    yield Buffer.from(buffer.subarray(0, length));
  }
}

/** What became of a connection: `silent`: no answer in time; else the errno (`ECONNREFUSED`, `EHOSTUNREACH`, …). */
export type Connected = { readonly ok: true; readonly ms: number } | { readonly ok: false; readonly error: string };

/** Connects by TCP, from `sourcePort` where it is not 0, and ends it at once. */
export async function connectTcp(
  clock: Clock,
  to: {
    readonly netns: Netns;
    readonly address: string;
    readonly port: number;
    readonly sourcePort: number;
    readonly timeoutMs: number;
  },
): Promise<Connected> {
  using socket = open(to.netns, AF_INET, SOCK.stream, 0);
  const { fd } = socket;
  const begun = clock.monotonic();
  setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
  if (to.sourcePort !== 0 && c.bind(fd, inetAddress('0.0.0.0', to.sourcePort), 16) < 0)
    return { ok: false, error: errnoName() };
  if (c.connect(fd, inetAddress(to.address, to.port), 16) < 0) {
    const error = errnoName();
    if (error !== 'EINPROGRESS') return { ok: false, error };
  }
  const error = await awaited(clock, to.timeoutMs, () => {
    const poll = Buffer.alloc(8);
    poll.writeInt32LE(fd, 0);
    poll.writeInt16LE(POLLOUT, 4);
    if (c.poll(poll, 1, 0) < 1) return undefined;
    const value = Buffer.alloc(4);
    c.getsockopt(fd, SOL_SOCKET, SO_ERROR, value, [4]);
    return value.readInt32LE(0);
  });
  // No lingering state of ours at either end: a probe is not a client.
  const linger = Buffer.alloc(8);
  linger.writeInt32LE(1, 0);
  setLinger(fd, linger);
  if (error === 0) return { ok: true, ms: clock.monotonic() - begun };
  return { ok: false, error: error === undefined ? 'silent' : errnoName(error) };
}

const setsockopt = libc.func('int setsockopt(int, int, int, const void *, uint32)');
function setLinger(fd: number, linger: Buffer): void {
  setsockopt(fd, SOL_SOCKET, SO_LINGER, linger, linger.length);
}

/** The first answer to a datagram; undefined for none in time. */
export async function askUdp(
  clock: Clock,
  to: {
    readonly netns: Netns;
    readonly address: string;
    readonly port: number;
    readonly payload: Buffer;
    readonly timeoutMs: number;
  },
): Promise<{ readonly answer?: Buffer; readonly error?: string }> {
  using socket = open(to.netns, AF_INET, SOCK.datagram, 0);
  const { fd } = socket;
  if (c.connect(fd, inetAddress(to.address, to.port), 16) < 0) return { error: errnoName() };
  try {
    send(fd, to.payload);
  } catch (error) {
    return { error: errnoOf(error) ?? 'EIO' };
  }
  return (
    (await awaited(clock, to.timeoutMs, () => {
      const buffer = Buffer.alloc(1 << 16);
      try {
        return { answer: Buffer.from(buffer.subarray(0, receive(fd, buffer, MSG_DONTWAIT))) };
      } catch (error) {
        const name = errnoOf(error) ?? 'EIO';
        return name === 'EAGAIN' ? undefined : { error: name };
      }
    })) ?? { error: 'silent' }
  );
}

/** What one echo request met. `refused`: a router or the host said that it does not get there; `tooLarge`: for its size. */
export type Echo =
  | { readonly kind: 'answered'; readonly ms: number }
  | { readonly kind: 'too-large'; readonly by: string; readonly mtu: number }
  | { readonly kind: 'refused'; readonly by: string; readonly why: string }
  | { readonly kind: 'silent' };

/**
 * Sends echo requests of whole packets of `sizes` bytes that may not be fragmented, all at once; what became of each, in
 * their order. `id` 1-65535 is the identifier of all.
 */
export async function echo(
  clock: Clock,
  to: {
    readonly netns: Netns;
    /** Which address of ours it is sent from; undefined: the kernel's choice. */
    readonly from?: string | undefined;
    readonly address: string;
    readonly sizes: readonly number[];
    readonly id: number;
    readonly timeoutMs: number;
  },
): Promise<Echo[]> {
  using socket = open(to.netns, AF_INET, SOCK.raw, IPPROTO_ICMP);
  const { fd } = socket;
  setOption(fd, 0, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
  if (to.from !== undefined && c.bind(fd, inetAddress(to.from, 0), 16) < 0) {
    const why = `${to.from} is not here (${errnoName()})`;
    return to.sizes.map(() => ({ kind: 'refused', by: '', why }));
  }
  const results = new Map<number, Echo>();
  const begun = clock.monotonic();
  for (const [sequence, size] of to.sizes.entries()) {
    const packet = echoRequest(to.id, sequence, size - 20);
    if (c.sendto(fd, packet, packet.length, 0, inetAddress(to.address, 0), 16) >= 0) continue;
    const error = errnoName();
    results.set(
      sequence,
      error === 'EMSGSIZE' ? { kind: 'too-large', by: '', mtu: 0 } : { kind: 'refused', by: '', why: error },
    );
  }
  await awaited(clock, to.timeoutMs, () => {
    for (const packet of arrived(fd)) {
      const heard = readEcho(packet, to.id, clock.monotonic() - begun);
      if (heard && !results.has(heard.sequence)) results.set(heard.sequence, heard.echo);
    }
    return results.size === to.sizes.length || undefined;
  });
  return to.sizes.map((_, sequence) => results.get(sequence) ?? { kind: 'silent' });
}

function echoRequest(id: number, sequence: number, length: number): Buffer {
  const packet = Buffer.alloc(Math.max(8, length));
  packet[0] = 8;
  packet.writeUInt16BE(id, 4);
  packet.writeUInt16BE(sequence, 6);
  let sum = 0;
  for (let offset = 0; offset < packet.length; offset += 2)
    sum += offset + 1 < packet.length ? packet.readUInt16BE(offset) : (packet[offset] ?? 0) << 8;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  packet.writeUInt16BE(~sum & 0xffff, 2);
  return packet;
}

/** RFC 792. A raw socket gives the IP header too. */
function readEcho(
  packet: Buffer,
  id: number,
  ms: number,
): { readonly sequence: number; readonly echo: Echo } | undefined {
  const header = ((packet[0] ?? 0) & 15) * 4;
  const message = packet.subarray(header);
  if (message.length < 8) return undefined;
  const by = [...packet.subarray(12, 16)].join('.');
  const [type, code] = [message[0], message[1] ?? 0];
  if (type === 0 && message.readUInt16BE(4) === id)
    return { sequence: message.readUInt16BE(6), echo: { kind: 'answered', ms } };
  if (type !== 3 && type !== 11) return undefined;
  const quoted = message.subarray(8);
  const inner = quoted.subarray(((quoted[0] ?? 0) & 15) * 4);
  if (quoted[9] !== IPPROTO_ICMP || inner.length < 8 || inner.readUInt16BE(4) !== id) return undefined;
  const sequence = inner.readUInt16BE(6);
  if (type === 3 && code === 4) return { sequence, echo: { kind: 'too-large', by, mtu: message.readUInt16BE(6) } };
  const why = type === 11 ? 'its time to live ran out' : (unreachable[code] ?? `unreachable (code ${code})`);
  return { sequence, echo: { kind: 'refused', by, why } };
}

const unreachable: Readonly<Record<number, string>> = {
  0: 'network unreachable',
  1: 'host unreachable',
  2: 'protocol unreachable',
  3: 'port unreachable',
  9: 'network prohibited',
  10: 'host prohibited',
  13: 'prohibited by a filter',
};

/** The MACs that answer for `address` on a link of this host within `waitMs`. `from`: our address there; 0.0.0.0 asks as who has none (RFC 5227). */
export async function arpOwners(
  clock: Clock,
  ask: {
    readonly link: number;
    readonly mac: string;
    readonly from: string;
    readonly address: string;
    readonly waitMs: number;
  },
): Promise<ReadonlySet<string>> {
  // Without a protocol until it is bound: else it would hear every link.
  using socket = open(undefined, AF_PACKET, SOCK.datagram, 0);
  const { fd } = socket;
  const here = linkAddress(ask.link, ETH_P_ARP);
  if (c.bind(fd, here, here.length) < 0) throw new Fault('unavailable', `no ARP on link ${ask.link}: ${errnoName()}`);
  const target = Buffer.from(ask.address.split('.').map(Number));
  const request = arpRequest(Buffer.from(ask.mac.replaceAll(':', ''), 'hex'), ask.from, ask.address);
  const macs = new Set<string>();
  const hear = () => {
    for (const packet of arrived(fd)) {
      if (packet.length < 28 || packet.readUInt16BE(6) !== 2 || !packet.subarray(14, 18).equals(target)) continue;
      macs.add([...packet.subarray(8, 14)].map((byte) => byte.toString(16).padStart(2, '0')).join(':'));
    }
    return undefined;
  };
  for (let attempt = 0; attempt < 2; attempt++) {
    c.sendto(fd, request, request.length, 0, here, here.length);
    await awaited(clock, ask.waitMs / 2, hear);
  }
  return macs;
}
