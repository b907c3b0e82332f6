/** What a container executes, in which environment and directory: Docker's merging of a service's words with its image's. Pure. */
import { posix } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { ContainerSpec } from '#proto/model/service.ts';
import type { ImageConfig } from './runtime.ts';

export const defaultPath = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin';

/**
 * An entrypoint of the service replaces the image's and drops the image's command; `[""]`, of either, stands for none at all.
 * Fault `invalid` where nothing is left to run.
 */
export function processArgs(
  container: Pick<ContainerSpec, 'entrypoint' | 'command' | 'image'>,
  image: Pick<ImageConfig, 'entrypoint' | 'command'>,
): readonly string[] {
  const own = container.entrypoint.length > 0;
  const reset = own && container.entrypoint.length === 1 && container.entrypoint[0] === '';
  const entrypoint = reset ? [] : own ? container.entrypoint : image.entrypoint;
  const said = container.command.length === 1 && container.command[0] === '' ? [] : container.command;
  const command = container.command.length > 0 || own ? said : image.command;
  const args = [...entrypoint, ...command];
  if (args.length === 0 || args[0] === '') {
    throw new Fault('invalid', `nothing to run: neither the service nor the image ${container.image} names a command`, {
      remedy: 'set `command:` in the service',
    });
  }
  return args;
}

/** Later entries win by name; `NAME` without `=` removes what the image set. Fault `invalid` for an empty name. */
export function processEnv(
  layers: readonly (readonly string[])[],
  fixed: { readonly hostname: string; readonly home: string; readonly tty: boolean },
): readonly string[] {
  const values = new Map<string, string>([
    ['PATH', defaultPath],
    ['HOSTNAME', fixed.hostname],
    ...(fixed.tty ? ([['TERM', 'xterm']] as const) : []),
    ['HOME', fixed.home],
  ]);
  for (const entry of layers.flat()) {
    const at = entry.indexOf('=');
    if (at === 0 || entry === '') throw new Fault('invalid', `environment entry "${entry}" has no name`);
    if (entry.includes('\0'))
      throw new Fault('invalid', `environment entry "${entry.slice(0, Math.max(at, 0))}" holds a zero byte`);
    if (at < 0) values.delete(entry);
    else values.set(entry.slice(0, at), entry.slice(at + 1));
  }
  return [...values].map(([name, value]) => `${name}=${value}`);
}

/** Absolute and clean. Fault `invalid` for a relative one, or one in /proc, whose descriptors lead out (CVE-2024-21626). */
export function workingDirectory(wanted: string, ofImage: string): string {
  const text = wanted || ofImage || '/';
  const path = posix.normalize(`${text}/`).replace(/(.)\/+$/, '$1');
  if (!text.startsWith('/')) {
    throw new Fault('invalid', `working directory "${text}" is not absolute`, { remedy: 'begin it with /' });
  }
  if (path === '/proc' || path.startsWith('/proc/') || text.includes('\0')) {
    throw new Fault('invalid', `working directory "${text}" is refused`, { remedy: 'use a directory outside /proc' });
  }
  return path;
}
