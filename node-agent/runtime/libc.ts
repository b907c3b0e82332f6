/** The C library's calls that Node lacks: processes without fork, mounts, terminals, pidfds, paths held inside a root. */
import { closeSync, constants as fsConstants, openSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { getSystemErrorMap } from 'node:util';
import koffi from 'koffi';

const libc = koffi.load('libc.so.6');
const c = {
  mount: libc.func('int mount(const char*, const char*, const char*, unsigned long, const char*)'),
  umount2: libc.func('int umount2(const char*, int)'),
  pipe2: libc.func('int pipe2(_Out_ int*, int)'),
  waitpid: libc.func('int waitpid(int, _Out_ int*, int)'),
  poll: libc.func('int poll(_Inout_ void*, unsigned long, int)'),
  unlockpt: libc.func('int unlockpt(int)'),
  tcgetattr: libc.func('int tcgetattr(int, _Out_ void*)'),
  tcsetattr: libc.func('int tcsetattr(int, int, const void*)'),
  cfmakeraw: libc.func('void cfmakeraw(_Inout_ void*)'),
  ioctlInt: libc.func('ioctl', 'int', ['int', 'unsigned long', 'long']),
  ioctlBuffer: libc.func('ioctl', 'int', ['int', 'unsigned long', 'void*']),
  syscall: libc.func('syscall', 'long', ['long', 'long', 'long', 'long', 'long']),
  openat2: libc.func('syscall', 'long', ['long', 'long', 'const char*', 'void*', 'long']),
  posixSpawn: libc.func(
    'int posix_spawn(_Out_ int*, const char*, const void*, const void*, const char**, const char**)',
  ),
  actionsInit: libc.func('int posix_spawn_file_actions_init(void*)'),
  actionsDestroy: libc.func('int posix_spawn_file_actions_destroy(void*)'),
  actionsDup2: libc.func('int posix_spawn_file_actions_adddup2(void*, int, int)'),
  actionsCloseFrom: libc.func('int posix_spawn_file_actions_addclosefrom_np(void*, int)'),
  actionsChdir: libc.func('int posix_spawn_file_actions_addchdir_np(void*, const char*)'),
  attrInit: libc.func('int posix_spawnattr_init(void*)'),
  attrDestroy: libc.func('int posix_spawnattr_destroy(void*)'),
  attrFlags: libc.func('int posix_spawnattr_setflags(void*, short)'),
  attrDefault: libc.func('int posix_spawnattr_setsigdefault(void*, const void*)'),
  attrMask: libc.func('int posix_spawnattr_setsigmask(void*, const void*)'),
};

/** A failed call, as Node's own errors carry it: `code` (ENOENT …) and `errno`. */
export class CallError extends Error {
  readonly code: string;
  readonly errno: number;
  constructor(call: string, errno: number) {
    const [code, text] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, `error ${errno}`];
    super(`${call}: ${text}`);
    this.code = code;
    this.errno = errno;
  }
}

function checked(call: string, result: number): number {
  if (result < 0) throw new CallError(call, koffi.errno());
  return result;
}

/** mount(2) flags by option name, as fstab spells them; what is not here is data for the filesystem. */
export const mountFlags: Readonly<Record<string, number>> = {
  ro: 1,
  nosuid: 2,
  nodev: 4,
  noexec: 8,
  sync: 16,
  remount: 32,
  noatime: 1024,
  nodiratime: 2048,
  bind: 4096,
  rbind: 4096 | 16384,
  private: 1 << 18,
  rprivate: (1 << 18) | 16384,
  slave: 1 << 19,
  rslave: (1 << 19) | 16384,
  shared: 1 << 20,
  rshared: (1 << 20) | 16384,
  relatime: 1 << 21,
  strictatime: 1 << 24,
};

/** Throws CallError. `data` is at most 4,095 bytes. */
export function mount(source: string, target: string, type: string, flags: number, data = ''): void {
  checked(`mount ${source} on ${target}`, c.mount(source, target, type, flags, data || null));
}

/** Unmounts; true when something was mounted there. Lazily where it is busy: it goes when its last user does. */
export function unmount(target: string): boolean {
  const detach = 2;
  const noFollow = 8;
  if (c.umount2(target, noFollow) === 0) return true;
  const errno = koffi.errno();
  if (errno === osConstants.errno.EINVAL || errno === osConstants.errno.ENOENT) return false;
  if (errno !== osConstants.errno.EBUSY) throw new CallError(`umount ${target}`, errno);
  checked(`umount ${target}`, c.umount2(target, detach | noFollow));
  return true;
}

/** Both ends close on exec. */
export function pipe(): { readonly read: number; readonly write: number } {
  const ends = [0, 0];
  checked('pipe2', c.pipe2(ends, 0o2000000));
  return { read: ends[0]!, write: ends[1]! };
}

export interface SpawnRequest {
  /** Absolute. */
  readonly path: string;
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd?: string;
  /** What becomes descriptors 0, 1, 2 … of the child; nothing else is inherited. */
  readonly fds: readonly number[];
}

/**
 * Starts a child in a session of its own, with default signals, in 0.3 ms whatever this process's size (libuv's fork
 * takes 2-40 ms). Returns its pid, which the caller waits for by `waitFor`. Throws CallError where it cannot be executed.
 */
export function spawn(request: SpawnRequest): number {
  const setSigDef = 4;
  const setSigMask = 8;
  const setSid = 128;
  const actions = Buffer.alloc(256);
  const attributes = Buffer.alloc(512);
  const emptySignals = Buffer.alloc(128);
  const allSignals = Buffer.alloc(128, 0xff);
  c.actionsInit(actions);
  c.attrInit(attributes);
  try {
    c.attrFlags(attributes, setSigDef | setSigMask | setSid);
    c.attrDefault(attributes, allSignals);
    c.attrMask(attributes, emptySignals);
    request.fds.forEach((fd, target) => {
      if (fd < request.fds.length && fd !== target) throw new Error(`descriptor ${fd} would be overwritten`);
      c.actionsDup2(actions, fd, target);
    });
    c.actionsCloseFrom(actions, request.fds.length);
    if (request.cwd) c.actionsChdir(actions, request.cwd);
    const pid = [0];
    const argv = [request.path, ...request.args, null];
    const errno = c.posixSpawn(pid, request.path, actions, attributes, argv, [...request.env, null]);
    if (errno !== 0) throw new CallError(`run ${request.path}`, errno);
    return pid[0]!;
  } finally {
    c.actionsDestroy(actions);
    c.attrDestroy(attributes);
  }
}

/** The child's status if it has ended: its exit code, or 128 + n for signal n; undefined while it runs; -1 if not ours. */
export function reap(pid: number): number | undefined {
  const status = [0];
  const result = c.waitpid(pid, status, 1);
  if (result === 0) return undefined;
  if (result < 0) return -1;
  const signal = status[0]! & 0x7f;
  return signal === 0 ? (status[0]! >> 8) & 0xff : 128 + signal;
}

/** A descriptor that means this process and no later one of its number; undefined where there is none. */
export function pidfdOpen(pid: number): number | undefined {
  const fd = Number(c.syscall(434, pid, 0, 0, 0));
  if (fd >= 0) return fd;
  if (koffi.errno() === osConstants.errno.ESRCH || koffi.errno() === osConstants.errno.EINVAL) return undefined;
  throw new CallError(`pidfd_open ${pid}`, koffi.errno());
}

/** False when the process has ended. */
export function pidfdSignal(pidfd: number, signal: number): boolean {
  if (Number(c.syscall(424, pidfd, signal, 0, 0)) === 0) return true;
  if (koffi.errno() === osConstants.errno.ESRCH) return false;
  throw new CallError('pidfd_send_signal', koffi.errno());
}

/** Which of the pidfds mean a process that has ended, without waiting. */
export function endedAmong(pidfds: readonly number[]): number[] {
  if (pidfds.length === 0) return [];
  const entries = Buffer.alloc(8 * pidfds.length);
  pidfds.forEach((fd, index) => {
    entries.writeInt32LE(fd, 8 * index);
    entries.writeInt16LE(1, 8 * index + 4);
  });
  checked('poll', c.poll(entries, pidfds.length, 0));
  return pidfds.filter((_, index) => entries.readInt16LE(8 * index + 6) !== 0);
}

/** A pseudo terminal of this size that passes everything through as it is; both ends close on exec. */
export function openTerminal(columns: number, rows: number): { readonly master: number; readonly slave: number } {
  const getPeer = 0x5441;
  const noControl = fsConstants.O_NOCTTY;
  const master = openSync('/dev/ptmx', fsConstants.O_RDWR | noControl);
  try {
    checked('unlockpt', c.unlockpt(master));
    const slave = checked('open pty', c.ioctlInt(master, getPeer, fsConstants.O_RDWR | noControl | 0o2000000));
    resizeTerminal(master, columns, rows);
    // The runtime would do so itself, but what is typed until then would be echoed here and in the container.
    const settings = Buffer.alloc(64);
    checked('tcgetattr', c.tcgetattr(slave, settings));
    c.cfmakeraw(settings);
    checked('tcsetattr', c.tcsetattr(slave, 0, settings));
    return { master, slave };
  } catch (error) {
    closeSync(master);
    throw error;
  }
}

export function resizeTerminal(fd: number, columns: number, rows: number): void {
  const setWindowSize = 0x5414;
  const size = Buffer.alloc(8);
  size.writeUInt16LE(Math.max(0, Math.min(rows, 0xffff)), 0);
  size.writeUInt16LE(Math.max(0, Math.min(columns, 0xffff)), 2);
  checked('resize terminal', c.ioctlBuffer(fd, setWindowSize, size));
}

/** Bits of open_how.resolve (openat2(2)). */
export const resolve = { noSymlinks: 4, beneath: 8, inRoot: 16 } as const;

/** Opens `path` below the directory `rootFd` with these rules of resolution: absolute paths and symlinks cannot lead out. */
export function openUnder(rootFd: number, path: string, flags: number, rules: number = resolve.inRoot): number {
  const how = Buffer.alloc(24);
  how.writeBigUInt64LE(BigInt(flags | 0o2000000), 0);
  how.writeBigUInt64LE(BigInt(rules), 16);
  return checked(`open ${path}`, Number(c.openat2(437, rootFd, path, how, how.length)));
}
