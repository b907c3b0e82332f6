/** Network namespaces pinned by a bind mount, made and entered without spawning anything. */
import fs from 'node:fs';
import path from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import { bindMount, inFreshNetns, inNetns, unmount } from './libc.ts';
import { Netlink } from './netlink.ts';

const NSFS_MAGIC = 0x6e736673;
const ownNetns = '/proc/thread-self/ns/net';

/** A namespace that is open here: where it is pinned, its descriptor, and a socket that acts within it. */
export interface OpenNetns extends Disposable {
  readonly path: string;
  readonly fd: number;
  readonly netlink: Netlink;
}

/** Pins a fresh namespace at `target`, prepared by `prepare` (run within it); Fault('exists') where one is pinned. */
export function createNetns(target: string, prepare: () => void): OpenNetns {
  if (isPinned(target)) throw new Fault('exists', `${target} is a network namespace already`);
  fs.mkdirSync(path.dirname(target), { recursive: true, mode: 0o755 });
  fs.closeSync(fs.openSync(target, 'w', 0o444));
  const netlink = atHome((home) =>
    inFreshNetns(home, () => {
      bindMount(ownNetns, target);
      prepare();
      return new Netlink(0);
    }),
  );
  return opened(target, fs.openSync(target, 'r'), netlink);
}

/** Opens the namespace pinned at `target`; Fault('not-found') where none is. */
export function openNetns(target: string): OpenNetns {
  if (!isPinned(target)) throw new Fault('not-found', `no network namespace is pinned at ${target}`);
  const fd = fs.openSync(target, 'r');
  try {
    return opened(
      target,
      fd,
      atHome((home) => inNetns(home, fd, () => new Netlink(0))),
    );
  } catch (error) {
    fs.closeSync(fd);
    throw error;
  }
}

/** Runs the synchronous `action` (a socket's opening, as a rule) in the namespace pinned at `target`; Fault('not-found') where none is. */
export function openInNetns<T>(target: string, action: () => T): T {
  if (!isPinned(target)) throw new Fault('not-found', `no network namespace is pinned at ${target}`);
  const fd = fs.openSync(target, 'r');
  try {
    return atHome((home) => inNetns(home, fd, action));
  } finally {
    fs.closeSync(fd);
  }
}

/** Runs the synchronous `action` in a namespace of its own that ends with what `action` opened in it. */
export function inPrivateNetns<T>(action: () => T): T {
  return atHome((home) => inFreshNetns(home, action));
}

/** Unpins; the namespace ends with its last process. Nothing where nothing is pinned. */
export function removeNetns(target: string): void {
  unmount(target);
  fs.rmSync(target, { force: true });
}

/** True where a namespace is pinned: a plain file is what is left after a reboot, or of an attach that was cut off. */
export function isPinned(target: string): boolean {
  try {
    return fs.statfsSync(target).type === NSFS_MAGIC;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

function opened(path: string, fd: number, netlink: Netlink): OpenNetns {
  return {
    path,
    fd,
    netlink,
    [Symbol.dispose]() {
      netlink.close();
      fs.closeSync(fd);
    },
  };
}

function atHome<T>(action: (homeFd: number) => T): T {
  const home = fs.openSync(ownNetns, 'r');
  try {
    return action(home);
  } finally {
    fs.closeSync(home);
  }
}
