/** Server sockets as descriptors, made or taken from another process: Node can listen on them, but not make or take them. */
import net from 'node:net';
import koffi from 'koffi';
import { tryAddress6 } from '#net/plan/address6.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { closeFd, errnoFault, setOption } from './libc.ts';

const libc = koffi.load('libc.so.6');
const c = {
  socket: libc.func('int socket(int, int, int)'),
  bind: libc.func('int bind(int, const void *, uint32)'),
  listen: libc.func('int listen(int, int)'),
  getsockname: libc.func('int getsockname(int, _Out_ void *, _Inout_ uint32 *)'),
  syscall: libc.func('syscall', 'long', ['long', 'long', 'long', 'long']),
};
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_CLOEXEC = 0o2000000;
const SOCK_NONBLOCK = 0o4000;
const kinds = { tcp: 1, udp: 2 } as const;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IPV6 = 41;
const IPV6_V6ONLY = 26;
const pendingConnections = 511;
/** Of every architecture, since Linux 5.3 and 5.6. */
const SYS_pidfd_open = 434;
const SYS_pidfd_getfd = 438;

/** A socket of this process bound to `address` (TCP: listening). Faults by errno: `exists` where it is taken, `not-found` where it is not the machine's. */
export function serverSocket(kind: keyof typeof kinds, address: string, port: number): number {
  const what = `listening on ${address}:${port}/${kind}`;
  const family = net.isIPv6(address) ? AF_INET6 : AF_INET;
  const fd = check(c.socket(family, kinds[kind] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), what);
  try {
    if (family === AF_INET6) setOption(fd, IPPROTO_IPV6, IPV6_V6ONLY, 1);
    if (kind === 'tcp') setOption(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    const name = sockaddr(family, address, port);
    check(c.bind(fd, name, name.length), what);
    if (kind === 'tcp') check(c.listen(fd, pendingConnections), what);
    return fd;
  } catch (error) {
    closeFd(fd);
    throw error;
  }
}

/** A copy of descriptor `fd` of another process. Faults by errno. */
export function descriptorOf(pid: number, fd: number): number {
  const what = `taking a socket of process ${pid}`;
  const pidfd = check(c.syscall(SYS_pidfd_open, pid, 0, 0), what);
  try {
    return check(c.syscall(SYS_pidfd_getfd, pidfd, fd, 0), what);
  } finally {
    closeFd(pidfd);
  }
}

/** True where the socket is bound there. */
export function isBoundTo(fd: number, address: string, port: number): boolean {
  const name = Buffer.alloc(28);
  const length = [name.length];
  if (c.getsockname(fd, name, length) < 0) return false;
  const wanted = sockaddr(net.isIPv6(address) ? AF_INET6 : AF_INET, address, port);
  return name.subarray(0, wanted.length).equals(wanted);
}

/** struct sockaddr_in, or sockaddr_in6. */
function sockaddr(family: number, address: string, port: number): Buffer {
  const name = Buffer.alloc(family === AF_INET6 ? 28 : 16);
  name.writeUInt16LE(family, 0);
  name.writeUInt16BE(port, 2);
  const bytes = family === AF_INET6 ? tryAddress6(address) : address.split('.').map(Number);
  if (!bytes) throw new Fault('invalid', `"${address}" is not an address`);
  name.set(bytes, family === AF_INET6 ? 8 : 4);
  return name;
}

function check(result: number, what: string): number {
  if (result < 0) throw errnoFault(what, koffi.errno());
  return result;
}
