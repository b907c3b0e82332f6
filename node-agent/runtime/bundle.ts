/** A container's directory on disk: what the runtime must still know after the agent, or the machine, was restarted. */
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmdirSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { TaskId } from '#proto/model/ids.ts';
import { conmonFiles } from './conmon.ts';
import type { OciSpec } from './oci-spec.ts';
import type { ContainerExit, LiveSettings } from './runtime.ts';

/** `container.json` of a bundle. A pid means the process that began at that tick of that boot, and no other. */
export interface BundleRecord {
  readonly id: TaskId;
  readonly bootId: string;
  readonly runtime: string;
  readonly logPath: string;
  readonly annotations: Readonly<Record<string, string>>;
  /** As last set; absent where an older agent made it. */
  readonly settings?: LiveSettings | undefined;
  /** 0 while it is being created. */
  readonly pid: number;
  readonly startTicks: number;
  readonly conmonPid: number;
  readonly conmonStartTicks: number;
  /** Kept where no exit file says it: conmon was lost. */
  readonly exit?: ContainerExit | undefined;
}

const recordFile = 'container.json';
const rootfsDirectory = 'rootfs';

export function bundleRootfs(bundle: string): string {
  return join(bundle, rootfsDirectory);
}

/** Makes the directories, for root's eyes only. */
export function makeBundle(bundle: string): void {
  mkdirSync(bundleRootfs(bundle), { recursive: true, mode: 0o700 });
}

/** Replaced as a whole, so that a reader finds the old or the new one. */
export function writeRecord(bundle: string, record: BundleRecord): void {
  const path = join(bundle, recordFile);
  writeFileSync(`${path}.new`, JSON.stringify(record), { mode: 0o600 });
  renameSync(`${path}.new`, path);
}

/** Undefined where the bundle has none, or half of one. */
export function readRecord(bundle: string): BundleRecord | undefined {
  try {
    return JSON.parse(readFileSync(join(bundle, recordFile), 'utf8')) as BundleRecord;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

export function writeSpec(bundle: string, spec: OciSpec): void {
  writeFileSync(join(bundle, 'config.json'), specText(spec), { mode: 0o600 });
}

export function readSpec(bundle: string): OciSpec {
  return JSON.parse(readFileSync(join(bundle, 'config.json'), 'utf8')) as OciSpec;
}

/** "Unlimited" is 2^64 - 1, which a JavaScript number cannot hold: it is -1 until here, and the nearest double when read back. */
export function specText(value: unknown): string {
  return JSON.stringify(value).replace(/"(soft|hard)":(?:-\d+|18446744073709552000)/g, '"$1":18446744073709551615');
}

/** The pid conmon wrote into one of its files; undefined before it did. */
export function readPid(bundle: string, file: string): number | undefined {
  const path = join(bundle, file);
  if (!existsSync(path)) return undefined;
  const pid = Number(readFileSync(path, 'utf8').trim());
  return Number.isInteger(pid) && pid > 0 ? pid : undefined;
}

export function hadOom(bundle: string): boolean {
  return existsSync(join(bundle, conmonFiles.oom));
}

/** Removes the bundle, whose root filesystem must be unmounted: what is still mounted is never descended into. */
export function removeBundle(bundle: string): void {
  if (!existsSync(bundle)) return;
  if (existsSync(bundleRootfs(bundle))) rmdirSync(bundleRootfs(bundle));
  for (const name of readdirSync(bundle))
    if (name !== recordFile) rmSync(join(bundle, name), { recursive: true, force: true });
  // Last, so that a removal cut short is found and finished by the next one.
  rmSync(bundle, { recursive: true, force: true });
}
