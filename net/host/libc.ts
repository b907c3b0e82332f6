/** The few libc calls that the network needs, in process through koffi; a failure is a Fault that carries the errno's name. */
import os from 'node:os';
import koffi from 'koffi';
import { tryAddress6 } from '#net/plan/address6.ts';
import { Fault, type FaultCode } from '#proto/kernel/errors.ts';

const libc = koffi.load('libc.so.6');
const c = {
  socket: libc.func('int socket(int, int, int)'),
  bind: libc.func('int bind(int, const void *, uint32)'),
  setsockopt: libc.func('int setsockopt(int, int, int, const void *, uint32)'),
  getsockname: libc.func('int getsockname(int, _Out_ void *, _Inout_ uint32 *)'),
  sendto: libc.func('long sendto(int, const void *, unsigned long, int, const void *, uint32)'),
  send: libc.func('long send(int, const void *, unsigned long, int)'),
  recv: libc.func('long recv(int, _Out_ void *, unsigned long, int)'),
  close: libc.func('int close(int)'),
  unshare: libc.func('int unshare(int)'),
  setns: libc.func('int setns(int, int)'),
  mount: libc.func('int mount(const char *, const char *, const char *, unsigned long, const void *)'),
  umount2: libc.func('int umount2(const char *, int)'),
};

export const AF_NETLINK = 16;
const AF_INET = 2;
const AF_INET6 = 10;
const AF_PACKET = 17;
const IPPROTO_ICMP = 1;
const IPPROTO_RAW = 255;
const IP_MTU_DISCOVER = 10;
/** Never fragment, and do not believe what was learnt of the path. */
const IP_PMTUDISC_PROBE = 3;
const SOL_RAW = 255;
const ICMP_FILTER = 1;
/** All but answers to echo requests, and what routers say of packets. */
const icmpFilter = ~((1 << 0) | (1 << 3));
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const CLONE_NEWNET = 0x40000000;
const MS_BIND = 4096;
const MNT_DETACH = 2;
export const MSG_DONTWAIT = 0x40;

// Of two names for one number, the one this file tells apart by.
const aliases = ['EWOULDBLOCK', 'ENOTSUP'];
const errnoNames = new Map(
  Object.entries(os.constants.errno).flatMap(([name, value]) => (aliases.includes(name) ? [] : [[value, name]])),
);
const codes: Readonly<Record<string, FaultCode>> = {
  EEXIST: 'exists',
  EADDRINUSE: 'exists',
  ENOENT: 'not-found',
  ENODEV: 'not-found',
  ENXIO: 'not-found',
  ESRCH: 'not-found',
  EADDRNOTAVAIL: 'not-found',
  EPERM: 'forbidden',
  EACCES: 'forbidden',
  EBUSY: 'conflict',
  EAGAIN: 'unavailable',
  ENETUNREACH: 'unavailable',
  EHOSTUNREACH: 'unavailable',
  ENETDOWN: 'unavailable',
  ENOMEM: 'exhausted',
  ENOSPC: 'exhausted',
  ENOBUFS: 'exhausted',
  EMFILE: 'exhausted',
  EOPNOTSUPP: 'unsupported',
  EAFNOSUPPORT: 'unsupported',
  EPROTONOSUPPORT: 'unsupported',
};

/** A Fault for an errno: `what: ENODEV`; errnoOf gives the name back. */
export function errnoFault(what: string, errno: number, remedy?: string): Fault {
  const name = errnoNames.get(errno) ?? `errno ${errno}`;
  return new Fault(codes[name] ?? 'internal', `${what}: ${name}`, {
    cause: { errno: name },
    ...(remedy === undefined ? {} : { remedy }),
  });
}

/** The errno's name that an errnoFault carries. */
export function errnoOf(error: unknown): string | undefined {
  const cause = error instanceof Fault ? (error.cause as { errno?: string } | undefined) : undefined;
  return cause?.errno;
}

function check(result: number, what: string): number {
  if (result < 0) throw errnoFault(what, koffi.errno());
  return result;
}

/** A netlink socket of the given protocol, bound, in the namespace this thread is in now. */
export function openNetlink(protocol: number, receiveBufferBytes?: number): { fd: number; portId: number } {
  const fd = check(c.socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), 'opening a netlink socket');
  try {
    const address = Buffer.alloc(12);
    address.writeUInt16LE(AF_NETLINK, 0);
    check(c.bind(fd, address, 12), 'binding a netlink socket');
    if (receiveBufferBytes !== undefined) setOption(fd, SOL_SOCKET, SO_RCVBUFFORCE, receiveBufferBytes);
    check(c.getsockname(fd, address, [12]), 'reading the port of a netlink socket');
    return { fd, portId: address.readUInt32LE(4) };
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

export function setOption(fd: number, level: number, name: number, value: number): void {
  const option = Buffer.alloc(4);
  option.writeInt32LE(value);
  check(c.setsockopt(fd, level, name, option, 4), `setting socket option ${level}/${name}`);
}

export function send(fd: number, data: Buffer): void {
  check(c.send(fd, data, data.length, 0), 'sending to netlink');
}

/** A socket for echo requests that nobody may fragment; it hears their answers. */
export function openIcmp(): number {
  const fd = check(c.socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP), 'opening a socket for ICMP');
  setOption(fd, 0, IP_MTU_DISCOVER, IP_PMTUDISC_PROBE);
  setOption(fd, SOL_RAW, ICMP_FILTER, icmpFilter);
  return fd;
}

/** Sends to an IPv4 address; false where it is too large for the link, or there is no way. */
export function sendTo(fd: number, data: Buffer, address: string): boolean {
  const to = Buffer.alloc(16);
  to.writeUInt16LE(AF_INET, 0);
  Buffer.from(address.split('.').map(Number)).copy(to, 4);
  return c.sendto(fd, data, data.length, MSG_DONTWAIT, to, 16) >= 0;
}

/** A socket that sends whole packets, also with addresses that are not the host's. */
export function openRaw(family: 'ip' | 'ip6'): number {
  const domain = family === 'ip' ? AF_INET : AF_INET6;
  return check(c.socket(domain, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_RAW), 'opening a socket for packets');
}

/** False where the kernel does not take it: it is too large for the link, or there is no way. */
export function sendRaw(fd: number, packet: Buffer, destination: string): boolean {
  const six = tryAddress6(destination);
  const to = Buffer.alloc(six ? 28 : 16);
  to.writeUInt16LE(six ? AF_INET6 : AF_INET, 0);
  to.set(six ?? destination.split('.').map(Number), six ? 8 : 4);
  return c.sendto(fd, packet, packet.length, MSG_DONTWAIT, to, to.length) >= 0;
}

/** A socket that sends on a link (its index) and hears nothing, and the link's own MAC; without one, empty. */
export function openLink(link: number): { readonly fd: number; readonly mac: Buffer } {
  const fd = check(c.socket(AF_PACKET, SOCK_DGRAM | SOCK_CLOEXEC, 0), 'opening a socket of a link');
  try {
    const address = linkAddress(link, 0);
    check(c.bind(fd, address, address.length), 'binding a socket of a link');
    check(c.getsockname(fd, address, [address.length]), 'reading the MAC of a link');
    return { fd, mac: address.subarray(12, 12 + (address[11] ?? 0)) };
  } catch (error) {
    c.close(fd);
    throw error;
  }
}

/** Sends to all who are on the link, or to one MAC of it, by a protocol of Ethernet's; false where the kernel does not take it. */
export function sendOnLink(fd: number, data: Buffer, link: number, protocol: number, mac?: Buffer): boolean {
  const to = linkAddress(link, protocol);
  mac?.copy(to, 12);
  return c.sendto(fd, data, data.length, MSG_DONTWAIT, to, to.length) >= 0;
}

/** struct sockaddr_ll (packet(7)) of everybody on the link, by a protocol of Ethernet's. */
export function linkAddress(link: number, protocol: number): Buffer {
  const address = Buffer.alloc(20);
  address.writeUInt16LE(AF_PACKET, 0);
  address.writeUInt16BE(protocol, 2);
  address.writeInt32LE(link, 4);
  address[11] = 6;
  address.fill(0xff, 12, 18);
  return address;
}

/** Bytes received into `buffer`. */
export function receive(fd: number, buffer: Buffer, flags = 0): number {
  return check(c.recv(fd, buffer, buffer.length, flags), 'receiving from netlink');
}

/** As send, on a thread of the pool: for requests whose work keeps the kernel busy for long. */
export function sendOnThread(fd: number, data: Buffer): Promise<void> {
  return onThread(c.send, [fd, data, data.length, 0], 'sending to netlink').then(() => {});
}

/** As receive, on a thread of the pool. */
export function receiveOnThread(fd: number, buffer: Buffer): Promise<number> {
  return onThread(c.recv, [fd, buffer, buffer.length, 0], 'receiving from netlink');
}

/** The errno of a call on a thread is that thread's own and is lost; netlink reports what matters in its messages. */
function onThread(call: typeof c.send, parameters: unknown[], what: string): Promise<number> {
  return new Promise((resolve, reject) => {
    call.async(...parameters, (error: unknown, result: number) => {
      if (error) reject(error);
      else if (result < 0) reject(new Fault('internal', `${what} failed`));
      else resolve(result);
    });
  });
}

export function closeFd(fd: number): void {
  c.close(fd);
}

/**
 * Runs `action` with this thread in a fresh network namespace, and comes back. `action` must be synchronous: only
 * so no other code of this thread ever runs in the wrong namespace.
 */
export function inFreshNetns<T>(homeFd: number, action: () => T): T {
  check(c.unshare(CLONE_NEWNET), 'making a network namespace');
  return comingHome(homeFd, action);
}

/** As inFreshNetns, in the namespace that `netnsFd` refers to. */
export function inNetns<T>(homeFd: number, netnsFd: number, action: () => T): T {
  check(c.setns(netnsFd, CLONE_NEWNET), 'entering a network namespace');
  return comingHome(homeFd, action);
}

function comingHome<T>(homeFd: number, action: () => T): T {
  try {
    return action();
  } finally {
    // Nothing may go on in the wrong namespace; that this fails for an open namespace fd is not known to happen.
    if (c.setns(homeFd, CLONE_NEWNET) < 0) process.abort();
  }
}

export function bindMount(source: string, target: string): void {
  check(c.mount(source, target, 'none', MS_BIND, null), `mounting ${source} on ${target}`);
}

/** Unmounts, at once for new users; false when nothing is mounted there. */
export function unmount(target: string): boolean {
  if (c.umount2(target, MNT_DETACH) >= 0) return true;
  const fault = errnoFault(`unmounting ${target}`, koffi.errno());
  if (['EINVAL', 'ENOENT'].includes(errnoOf(fault) ?? '')) return false;
  throw fault;
}
