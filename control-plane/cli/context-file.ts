/** Contexts: control planes on other machines, one file each, with the key to them; hence mode 0600. */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import { namePattern } from '#proto/model/ids.ts';

export interface Context {
  /** `host:port` of control planes. */
  readonly addresses: readonly string[];
  /** PEM texts. */
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
}

function directory(): string {
  return process.env.GANTRY_CONFIG ?? join(process.env.XDG_CONFIG_HOME ?? join(homedir(), '.config'), 'gantry');
}

function pathOf(name: string): string {
  if (!namePattern.test(name))
    throw new Fault('invalid', `"${name}" cannot name a context`, { remedy: 'use a-z, 0-9, - and _' });
  return join(directory(), 'contexts', `${name}.json`);
}

/** The name that `gantry context use` was told; undefined: the unix socket. */
export function currentContext(): string | undefined {
  try {
    return readFileSync(join(directory(), 'current-context'), 'utf8').trim() || undefined;
  } catch {
    return undefined;
  }
}

export function useContext(name: string): void {
  if (name !== 'local') readContext(name);
  mkdirSync(directory(), { recursive: true, mode: 0o700 });
  writeFileSync(join(directory(), 'current-context'), `${name}\n`);
}

export function contextNames(): string[] {
  const path = join(directory(), 'contexts');
  return existsSync(path)
    ? readdirSync(path)
        .flatMap((file) => (file.endsWith('.json') ? [file.slice(0, -5)] : []))
        .sort()
    : [];
}

/** Faults: `not-found`, `invalid`. */
export function readContext(name: string): Context {
  const path = pathOf(name);
  if (!existsSync(path))
    throw new Fault('not-found', `there is no context "${name}"`, {
      remedy: 'see gantry context ls, or add it: gantry context add',
    });
  return parseContext(readFileSync(path, 'utf8'), path);
}

/** Faults: `invalid`. */
export function parseContext(text: string, path: string): Context {
  const wrong = (what: string) =>
    new Fault('invalid', `${path} is not a context file: ${what}`, {
      remedy: 'make one on a manager: gantry context create',
    });
  let value: Partial<Record<keyof Context, unknown>>;
  try {
    value = JSON.parse(text);
  } catch {
    throw wrong('it is not JSON');
  }
  const { addresses, ca, certificate, key } = value;
  if (!Array.isArray(addresses) || addresses.length === 0) throw wrong('it has no addresses');
  for (const field of [ca, certificate, key])
    if (typeof field !== 'string' || !field.includes('-----BEGIN')) throw wrong('a certificate or key is missing');
  return { addresses, ca: ca as string, certificate: certificate as string, key: key as string };
}

export function writeContext(path: string, context: Context): void {
  // Another command may read it, or write it, at the same moment.
  const next = `${path}.${process.pid}`;
  writeFileSync(next, `${JSON.stringify(context, undefined, 2)}\n`, { mode: 0o600 });
  renameSync(next, path);
}

export function saveContext(name: string, context: Context): string {
  const path = pathOf(name);
  mkdirSync(join(directory(), 'contexts'), { recursive: true, mode: 0o700 });
  writeContext(path, context);
  return path;
}

export function removeContext(name: string): void {
  readContext(name);
  rmSync(pathOf(name));
  if (currentContext() === name) rmSync(join(directory(), 'current-context'), { force: true });
}
