/** Root filesystems: mounting them, and reading from them as if from inside, where no symlink leads out. */
import { closeSync, constants, fchmodSync, fstatSync, openSync, readSync } from 'node:fs';
import { Fault } from '#proto/kernel/errors.ts';
import { CallError, mount, mountFlags, openUnder, resolve, unmount } from './libc.ts';
import type { PreparedMount, RootfsMount } from './runtime.ts';

const maxOptionBytes = 4095;
const maxFileBytes = 1 << 20;

/** Mounts `mounts` on `target`, an existing directory, propagating to nowhere. Faults: `unavailable` with the kernel's words. */
export function mountRootfs(mounts: readonly RootfsMount[], target: string): void {
  try {
    for (const one of mounts) mountOne(one, target);
    mount('none', target, '', mountFlags.rprivate!);
  } catch (error) {
    unmount(target);
    throw new Fault('unavailable', `the root filesystem could not be mounted: ${(error as Error).message}`, {
      cause: error,
      remedy: 'look at `dmesg`, and whether the snapshot still exists',
    });
  }
}

function mountOne(one: RootfsMount, target: string): void {
  let flags = 0;
  const data: string[] = [];
  for (const option of one.options) {
    const flag = mountFlags[option];
    if (flag !== undefined) flags |= flag;
    else if (option !== 'rw') data.push(option);
  }
  const text = data.join(',');
  if (Buffer.byteLength(text) <= maxOptionBytes) mount(one.source, target, one.type, flags, text);
  else mountFromWithin(one, target, flags, data);
  const readOnly = mountFlags.ro!;
  // A bind takes its other flags only when it is mounted again.
  if (flags & mountFlags.bind! && flags & readOnly) mount('none', target, '', (flags & ~0x4000) | mountFlags.remount!);
}

/** The kernel takes 4,095 bytes of options: many layers fit only as paths relative to the directory they share. */
function mountFromWithin(one: RootfsMount, target: string, flags: number, data: readonly string[]): void {
  const lower =
    data
      .find((option) => option.startsWith('lowerdir='))
      ?.slice('lowerdir='.length)
      .split(':') ?? [];
  const shared = sharedDirectory(lower);
  if (shared === '/') throw new Error(`${lower.length} layers without a directory in common do not fit one mount`);
  const short = data.map((option) =>
    option.startsWith('lowerdir=') ? `lowerdir=${lower.map((path) => path.slice(shared.length)).join(':')}` : option,
  );
  const before = process.cwd();
  process.chdir(shared);
  try {
    mount(one.source, target, one.type, flags, short.join(','));
  } finally {
    process.chdir(before);
  }
}

/** The longest directory, ending in `/`, that all paths are below. */
export function sharedDirectory(paths: readonly string[]): string {
  let shared = paths[0] ?? '/';
  for (const path of paths)
    while (!path.startsWith(shared) || !shared.endsWith('/')) {
      const cut = shared.lastIndexOf('/', shared.length - 2);
      if (cut < 0) return '/';
      shared = shared.slice(0, cut + 1);
    }
  return shared;
}

/** The text of a regular file inside the root; empty where there is none. Symlinks resolve inside. */
export function readInRoot(rootPath: string, path: string): string {
  const root = openSync(rootPath, constants.O_RDONLY | constants.O_DIRECTORY);
  let fd = -1;
  try {
    fd = openUnder(root, path, constants.O_RDONLY | constants.O_NONBLOCK);
    const { size } = fstatSync(fd);
    if (!fstatSync(fd).isFile()) return '';
    if (size > maxFileBytes) throw new Fault('invalid', `${path} of the image is larger than ${maxFileBytes} bytes`);
    const buffer = Buffer.alloc(Number(size));
    return buffer.toString('utf8', 0, readSync(fd, buffer, 0, buffer.length, 0));
  } catch (error) {
    if (error instanceof CallError && ['ENOENT', 'ENOTDIR', 'ELOOP', 'ENXIO'].includes(error.code)) return '';
    throw error;
  } finally {
    if (fd >= 0) closeSync(fd);
    closeSync(root);
  }
}

/**
 * Gives the directories of the image that tmpfs mounts will hide the modes asked for them: runc 1.1 copies the mode of the
 * directory below over that of the option.
 */
export function setTmpfsModes(rootPath: string, mounts: readonly PreparedMount[]): void {
  const root = openSync(rootPath, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    for (const { type, target, options } of mounts) {
      const mode = options.find((option) => option.startsWith('mode='))?.slice('mode='.length);
      if (type !== 'tmpfs' || mode === undefined) continue;
      try {
        const fd = openUnder(root, target, constants.O_RDONLY | constants.O_DIRECTORY);
        fchmodSync(fd, Number.parseInt(mode, 8));
        closeSync(fd);
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
      }
    }
  } finally {
    closeSync(root);
  }
}

/** Refuses images in which a symlink stands where the kernel's own filesystems go (CVE-2019-19921 and its kin). */
export function checkRootfs(rootPath: string): void {
  const root = openSync(rootPath, constants.O_RDONLY | constants.O_DIRECTORY);
  const pathOnly = 0o10000000;
  try {
    for (const name of ['dev', 'proc', 'sys']) {
      try {
        const rules = resolve.noSymlinks | resolve.beneath;
        closeSync(openUnder(root, name, pathOnly | constants.O_DIRECTORY | constants.O_NOFOLLOW, rules));
      } catch (error) {
        if (error instanceof CallError && error.code === 'ENOENT') continue;
        throw new Fault('invalid', `/${name} of the image is not a directory`, {
          cause: error,
          remedy: 'use an image in which /dev, /proc and /sys are plain directories, or absent',
        });
      }
    }
  } finally {
    closeSync(root);
  }
}
