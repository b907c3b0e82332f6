/** `extends:` a service is what another one is, of this file or another, with its own keys laid over that. */
import { type Findings, refuse, suggestion } from './diagnostic.ts';
import type { Said } from './draft.ts';
import { mergeService } from './merge.ts';
import { directoryOf, normalizedPath } from './paths.ts';
import { isNull, readKeys, readText } from './read.ts';
import type { Files, Scope } from './scope.ts';
import { child, type Entry, type MapTree, type Tree, withoutKey } from './tree.ts';

interface Extension {
  service?: Said<string>;
  file?: Said<string>;
}

/** `service`, and `file` where it is another one. */
export function readExtends(findings: Findings, tree: Tree): Extension {
  const extension: Extension = {};
  const said = (key: 'service' | 'file') => (extension: Extension, value: Tree) => {
    const text = readText(findings, value);
    if (text !== undefined) extension[key] = { value: text, place: value };
  };
  if (tree.kind === 'scalar') said('service')(extension, tree);
  else {
    readKeys(findings, tree, 'extends', extension, { service: said('service'), file: said('file') });
    if (tree.kind === 'map' && !tree.entries.has('service'))
      refuse(findings, tree, 'this extends no service', 'add service:');
  }
  return extension;
}

/** Where services are looked for. */
interface Source {
  readonly path: string;
  readonly scope: Scope;
  readonly names: () => Iterable<string>;
  readonly service: (name: string) => Tree | undefined;
}

/** The file with every service whole; services of `earlier` files may be extended too. */
export function extendServices(files: Files, file: MapTree, earlier: Tree | undefined, scope: Scope): MapTree {
  const services = child(file, 'services');
  if (services?.kind !== 'map') return file;
  const before = child(earlier, 'services');
  const source: Source = {
    path: normalizedPath(file.at.file),
    scope,
    names: () => [...services.entries.keys(), ...(before?.kind === 'map' ? before.entries.keys() : [])],
    service: (name) => child(services, name) ?? child(before, name),
  };
  const entries = new Map<string, Entry>();
  const done = new Map<string, Tree>();
  for (const [name, entry] of services.entries)
    entries.set(name, { ...entry, value: whole(files, source, name, entry.value, [`${source.path} ${name}`], done) });
  const { keyAt } = file.entries.get('services')!;
  return { ...file, entries: new Map(file.entries).set('services', { keyAt, value: { ...services, entries } }) };
}

/** `chain`: what led here. `done`: services that others have extended already. */
function whole(
  files: Files,
  source: Source,
  name: string,
  own: Tree,
  chain: readonly string[],
  done: Map<string, Tree>,
): Tree {
  const { findings } = files;
  const said = child(own, 'extends');
  if (own.kind !== 'map' || !said || isNull(said)) return own;
  const plain = withoutKey(own, 'extends');
  const { service, file } = readExtends(findings, said);
  const from = file ? sourceIn(files, file, source.scope) : source;
  if (!service || !from) return plain;
  const link = `${from.path} ${service.value}`;
  const refused = (message: string, remedy: string) => {
    refuse(findings, service.place, message, remedy);
    return plain;
  };
  if (chain.includes(link))
    return refused(`service ${name} extends itself, over ${service.value}`, 'extend another one');
  const base = done.get(link) ?? from.service(service.value);
  if (base === undefined) {
    if (files.wanted.any) return plain;
    const guess = suggestion(service.value, from.names());
    return refused(
      `there is no service "${service.value}" in ${file ? file.value : 'the file'}`,
      guess ? `did you mean "${guess}"?` : 'extend another one',
    );
  }
  const extended = done.get(link) ?? whole(files, from, service.value, base, [...chain, link], done);
  done.set(link, extended);
  refuseDisabling(findings, extended, plain);
  return mergeService(name, extended, plain);
}

/** The specification has it so: a check that the other service has is not switched off by who extends it. */
function refuseDisabling(findings: Findings, extended: Tree, own: Tree): void {
  const disable = (service: Tree) => child(service, 'healthcheck', 'disable');
  const isSaid = (tree: Tree | undefined) => tree?.kind === 'scalar' && tree.value === true;
  const said = disable(own);
  if (!said || !isSaid(said) || !child(extended, 'healthcheck') || isSaid(disable(extended))) return;
  refuse(
    findings,
    said,
    'the service that this one extends has a health check, which cannot be switched off here',
    'write test: ["NONE"], or extend another one',
  );
}

/** The services of another file; undefined: it is not there, or not told yet. */
function sourceIn(
  files: Files,
  { value: path, place }: Said<string>,
  { lookup, including }: Scope,
): Source | undefined {
  const documents = files.file(path, place);
  if (!documents) return undefined;
  const scope: Scope = { base: directoryOf(path), lookup, including };
  const services = documents.flatMap((document) => child(document, 'services') ?? []);
  return {
    path: normalizedPath(path),
    scope,
    names: () => services.flatMap((one) => (one.kind === 'map' ? [...one.entries.keys()] : [])),
    service: (name) => {
      const found = documents.findLast((document) => child(document, 'services', name));
      const alone = found && aloneIn(found, name);
      if (!alone || !files.ask([alone])) return undefined;
      return child(files.prepared(alone, scope), 'services', name);
    },
  };
}

/** The file as if it had only this service: what others of it want does not matter. */
function aloneIn(file: Tree, name: string): Tree {
  const services = child(file, 'services');
  if (file.kind !== 'map' || services?.kind !== 'map') return file;
  const { keyAt } = file.entries.get('services')!;
  const value = { ...services, entries: new Map([[name, services.entries.get(name)!]]) };
  return { ...file, entries: new Map([['services', { keyAt, value }]]) };
}
