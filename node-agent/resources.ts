/** The generic resources of a node: what the operator says that it offers, and how a task learns which it has. Pure. */
import { Fault } from '#proto/kernel/errors.ts';
import { type GenericResource, isResourceKind, isResourceName } from '#proto/model/resources.ts';
import type { Device } from '#proto/model/service.ts';

/** `gpu=2,fpga=a;b`: kinds by number, or by the names of each one. Faults: `invalid`. */
export function parseResources(text: string): readonly GenericResource[] {
  const kinds = new Map<string, GenericResource>();
  for (const part of text.split(',').filter((part) => part.trim() !== '')) {
    const cut = part.indexOf('=');
    const kind = part.slice(0, Math.max(0, cut)).trim();
    if (!isResourceKind(kind)) refuse(`"${part}" names no kind of resources`);
    if (kinds.has(kind)) refuse(`${kind} is there twice`);
    kinds.set(kind, offered(kind, part.slice(cut + 1).trim()));
  }
  return [...kinds.values()];
}

/** What a task finds in its environment, as with Swarm: `DOCKER_RESOURCE_GPU=a,b`, or the number of what has no names. */
export function resourceEnv(given: readonly GenericResource[]): readonly string[] {
  return given.map(({ kind, count, names }) => {
    const name = kind.toUpperCase().replace(/[^A-Z0-9]/g, '_');
    return `DOCKER_RESOURCE_${name}=${names.length > 0 ? names.join(',') : count}`;
  });
}

/** The host's devices among what a task was given: names that are paths. */
export function resourceDevices(given: readonly GenericResource[]): readonly Device[] {
  const paths = given.flatMap(({ names }) => names.filter((name) => name.startsWith('/dev/')));
  return paths.map((path) => ({ source: path, target: path, permissions: 'rwm' }));
}

function offered(kind: string, value: string): GenericResource {
  if (/^\d{1,5}$/.test(value)) return { kind, count: Number(value), names: [] };
  const names = value.split(';').map((name) => name.trim());
  const wrong = names.find((name) => !isResourceName(name));
  if (wrong !== undefined) refuse(`"${wrong}" cannot name a ${kind}`);
  if (new Set(names).size < names.length) refuse(`two ${kind} have one name`);
  return { kind, count: names.length, names };
}

function refuse(why: string): never {
  throw new Fault('invalid', `--resources: ${why}`, { remedy: 'write it as gpu=2,fpga=a;b' });
}
