/** Devices of this node, as containers get them. */
import { readdirSync, realpathSync, statSync } from 'node:fs';
import { join, posix } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { Device } from '#proto/model/service.ts';

/** A device node of a container, in the words of the OCI runtime specification, and what may be done with it. */
export interface HostDevice {
  readonly type: 'b' | 'c';
  /** In the container. */
  readonly path: string;
  readonly major: number;
  readonly minor: number;
  /** Permissions of the file. */
  readonly fileMode: number;
  readonly uid: number;
  readonly gid: number;
  /** Of r, w and m. */
  readonly permissions: string;
}

/** What these come to here: of a directory all devices below it. Fault `precondition`: there is none; `invalid`. */
export function hostDevices(wanted: readonly Device[]): readonly HostDevice[] {
  const found = wanted.flatMap((device) => {
    const here = below(device.source, device.target);
    if (here.length > 0) return here.map(([source, target]) => hostDevice(source, target, device.permissions));
    throw missing(device.source, 'has no devices in it');
  });
  return [...new Map(found.map((device) => [device.path, device])).values()];
}

/** As cgroups name it: `254:0`. Fault `precondition`. */
export function deviceNumber(path: string): string {
  const { major, minor } = hostDevice(path, path, '');
  return `${major}:${minor}`;
}

function below(source: string, target: string): [source: string, target: string][] {
  const real = resolved(source);
  if (!statSync(real).isDirectory()) return [[real, target]];
  return readdirSync(real, { withFileTypes: true }).flatMap((entry) => {
    const [from, to] = [join(real, entry.name), posix.join(target, entry.name)];
    if (entry.isDirectory()) return below(from, to);
    return entry.isBlockDevice() || entry.isCharacterDevice() ? [[from, to] as [string, string]] : [];
  });
}

function hostDevice(source: string, target: string, permissions: string): HostDevice {
  const stat = statSync(resolved(source));
  const type = stat.isBlockDevice() ? 'b' : stat.isCharacterDevice() ? 'c' : undefined;
  if (!type) throw missing(source, 'is no device');
  return {
    type,
    path: target,
    major: majorOf(stat.rdev),
    minor: minorOf(stat.rdev),
    fileMode: stat.mode & 0o777,
    uid: stat.uid,
    gid: stat.gid,
    permissions,
  };
}

/** As glibc's makedev has them. */
function majorOf(rdev: number): number {
  return Number(((BigInt(rdev) >> 8n) & 0xfffn) | ((BigInt(rdev) >> 32n) & 0xfffff000n));
}

function minorOf(rdev: number): number {
  return Number((BigInt(rdev) & 0xffn) | ((BigInt(rdev) >> 12n) & 0xffffff00n));
}

function resolved(path: string): string {
  try {
    return realpathSync(path);
  } catch (error) {
    throw missing(path, 'is not there', error);
  }
}

function missing(path: string, what: string, cause?: unknown): Fault {
  return new Fault('precondition', `device ${path} ${what} on this node`, {
    cause,
    remedy: 'let a placement constraint choose a node that has it',
  });
}
