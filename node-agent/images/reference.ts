/** Pure: image references as Docker's grammar spells them, made whole: `nginx` is `docker.io/library/nginx:latest`. */
import { Fault } from '#proto/kernel/errors.ts';

/** A whole reference. At least one of `tag` and `digest` is not empty; with both, the digest decides. */
export interface Reference {
  /** Host, with port where given: `docker.io`, `registry:5000`. */
  readonly registry: string;
  readonly repository: string;
  readonly tag: string;
  readonly digest: string;
}

const host =
  /^(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::[0-9]{1,5})?$/;
const component = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const tagPattern = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const digestPattern = /^sha256:[0-9a-f]{64}$/;

/** True for `sha256:` and 64 lower-case hex digits: the only digests Gantry takes. */
export function isDigest(text: string): boolean {
  return digestPattern.test(text);
}

/** Reads a reference as a user writes it. Fault `invalid` names the part that is wrong. */
export function parseReference(text: string): Reference {
  const bad = (why: string) =>
    new Fault('invalid', `image "${text}": ${why}`, {
      remedy: 'write [REGISTRY/]NAME[:TAG][@sha256:…], as in docker pull',
    });
  if (text === '') throw bad('the reference is empty');
  if (text.includes('://')) throw bad('a reference has no scheme');
  const [named, digest = '', ...more] = text.split('@');
  if (more.length > 0) throw bad('more than one @');
  if (text.includes('@') && !isDigest(digest)) throw bad(`"${digest}" is not sha256: and 64 hex digits`);
  const slash = named!.lastIndexOf('/');
  const colon = named!.indexOf(':', slash + 1);
  const path = colon < 0 ? named! : named!.slice(0, colon);
  const tag = colon < 0 ? '' : named!.slice(colon + 1);
  if (colon >= 0 && !tagPattern.test(tag))
    throw bad(`"${tag}" is not a tag: letters, digits, _ . - and at most 128 of them`);
  const { registry, repository } = splitRegistry(path);
  if (!host.test(registry)) throw bad(`"${registry}" is not a registry's host`);
  if (repository === '') throw bad('the name is missing');
  if (/[A-Z]/.test(repository)) throw bad('a name is in lower case');
  for (const part of repository.split('/')) if (!component.test(part)) throw bad(`"${part}" is not a part of a name`);
  if (registry.length + repository.length + 1 > 255) throw bad('a name has at most 255 characters');
  return { registry, repository, tag: tag === '' && digest === '' ? 'latest' : tag, digest };
}

/** The whole form: `docker.io/library/nginx:latest`. */
export function formatReference(reference: Reference): string {
  const { registry, repository, tag, digest } = reference;
  return `${registry}/${repository}${tag && `:${tag}`}${digest && `@${digest}`}`;
}

/** Where the registry's API is: Docker Hub's is not at its name. */
export function apiHost(registry: string): string {
  return registry === 'docker.io' ? 'registry-1.docker.io' : registry;
}

function splitRegistry(path: string): { registry: string; repository: string } {
  const at = path.indexOf('/');
  const first = at < 0 ? '' : path.slice(0, at);
  const isHost = first !== '' && (/[.:[A-Z]/.test(first) || first === 'localhost');
  const registry = isHost ? first : 'docker.io';
  const rest = isHost ? path.slice(at + 1) : path;
  if (registry !== 'docker.io' && registry !== 'index.docker.io') return { registry, repository: rest };
  return { registry: 'docker.io', repository: rest !== '' && !rest.includes('/') ? `library/${rest}` : rest };
}
