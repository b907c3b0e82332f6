/** Trees laid over each other by the Compose Specification's rules: maps meet key by key, lists append, commands replace. */
import { type Entry, type ListTree, type MapTree, rebased, type ScalarTree, type Tree } from './tree.ts';

/** Where a rule holds; `*` is a name of the user's. */
type Paths = readonly string[];

/** What the last file says stands alone. */
const replaced: Paths = [
  'services.*.command',
  'services.*.entrypoint',
  'services.*.healthcheck.test',
  'services.*.ulimits.*',
];
/** Lists of NAME=VALUE that are maps in truth: a name alone is a value too. */
const pairs: Paths = [
  'services.*.annotations',
  'services.*.build.additional_contexts',
  'services.*.build.args',
  'services.*.build.extra_hosts',
  'services.*.build.labels',
  'services.*.deploy.labels',
  'services.*.environment',
  'services.*.extra_hosts',
  'services.*.labels',
  'services.*.sysctls',
  'services.*.volumes.volume.labels',
  'networks.*.labels',
  'volumes.*.labels',
  'configs.*.labels',
  'secrets.*.labels',
];
/** Lists of names that are maps in truth. */
const names: Paths = ['services.*.depends_on', 'services.*.models', 'services.*.networks'];
/** A text that is a list of one, and appends. */
const oneOrMore: Paths = [
  'services.*.dns',
  'services.*.dns_opt',
  'services.*.dns_search',
  'services.*.env_file',
  'services.*.label_file',
  'services.*.tmpfs',
  'services.*.x-allow-from',
];
/** Lists in which the last word about a thing stands, in the place of the first: how the thing is called. */
const unique: Readonly<Record<string, (item: Tree) => string | undefined>> = {
  'networks.*.ipam.config': (item) => textOf(item, 'subnet'),
  'services.*.configs': (item) => mountedAt(item, '/'),
  'services.*.devices': targetOf,
  'services.*.env_file': (item) => textOf(item, 'path'),
  'services.*.ports': portOf,
  'services.*.secrets': (item) => mountedAt(item, '/run/secrets/'),
  'services.*.volumes': targetOf,
};

/** `later` laid over `earlier`, both whole files. */
export function merge(earlier: Tree, later: Tree): Tree {
  return rebased(mergeAt(earlier, later, ''), '');
}

/** The service that `later` is when it extends `earlier`. */
export function mergeService(name: string, earlier: Tree, later: Tree): Tree {
  const path = `services.${name}`;
  return rebased(mergeAt(earlier, later, path), path);
}

function mergeAt(earlier: Tree, later: Tree, path: string): Tree {
  const rule = path.replace(/^(services|networks|volumes|configs|secrets|models)\.[^.]+/, '$1.*');
  if (later.tag === 'override') return later;
  if (isNothing(later)) return earlier;
  if (isNothing(earlier)) return later;
  if (replaced.includes(rule.replace(/\.ulimits\.[^.]+$/, '.ulimits.*'))) return later;
  if (pairs.includes(rule)) return overlaid(pairsOf(earlier, path), pairsOf(later, path));
  if (names.includes(rule)) return mergeMaps(namesOf(earlier, rule), namesOf(later, rule), path);
  if (oneOrMore.includes(rule)) return mergeLists(asList(earlier), asList(later), rule);
  if (rule === 'services.*.build') return mergeMaps(contextOf(earlier), contextOf(later), path);
  if (rule === 'services.*.logging' && differs(textOf(earlier, 'driver'), textOf(later, 'driver'))) return later;
  if (earlier.kind === 'map' && later.kind === 'map') return mergeMaps(earlier, later, path);
  if (earlier.kind === 'list' && later.kind === 'list') return mergeLists(earlier, later, rule);
  return later;
}

function isNothing(tree: Tree): boolean {
  return tree.kind === 'scalar' && tree.value === null;
}

function differs(a: string | undefined, b: string | undefined): boolean {
  return a !== undefined && b !== undefined && a !== b;
}

function mergeMaps(earlier: Tree, later: Tree, path: string): Tree {
  if (earlier.kind !== 'map' || later.kind !== 'map') return later;
  const entries = new Map<string, Entry>(earlier.entries);
  for (const [key, entry] of later.entries) {
    const before = entries.get(key);
    if (entry.value.tag === 'reset') entries.delete(key);
    else if (before)
      entries.set(key, {
        keyAt: entry.keyAt,
        value: mergeAt(before.value, entry.value, path ? `${path}.${key}` : key),
      });
    else entries.set(key, entry);
  }
  return { ...later, entries } satisfies MapTree;
}

/** Maps whose values are whole: the later one's stand. */
function overlaid(earlier: Tree, later: Tree): Tree {
  if (earlier.kind !== 'map' || later.kind !== 'map') return later;
  const entries = new Map<string, Entry>(earlier.entries);
  for (const [key, entry] of later.entries)
    if (entry.value.tag === 'reset') entries.delete(key);
    else entries.set(key, entry);
  return { ...later, entries } satisfies MapTree;
}

function mergeLists(earlier: Tree, later: Tree, rule: string): Tree {
  if (earlier.kind !== 'list' || later.kind !== 'list') return later;
  const items = new Map<string, Tree>();
  const nameOf = Object.hasOwn(unique, rule) ? unique[rule] : undefined;
  for (const item of [...earlier.items, ...later.items]) {
    const name = nameOf?.(item);
    items.set(name === undefined ? `= ${fingerprint(item)}` : name, item);
  }
  return { ...later, items: [...items.values()] } satisfies ListTree;
}

function pairsOf(tree: Tree, path: string): Tree {
  const separator = path.endsWith('extra_hosts') ? /[:=]/ : /=/;
  return asMap(tree, (item) => {
    const cut = item.source.search(separator);
    if (cut < 0) return [item.source, { ...item, value: null, source: '' }];
    const text = item.source.slice(cut + 1);
    return [item.source.slice(0, cut), { ...item, value: text, source: text }];
  });
}

function namesOf(tree: Tree, rule: string): Tree {
  const said: readonly [string, string][] = rule === 'services.*.depends_on' ? [['condition', 'service_started']] : [];
  return asMap(tree, (item) => [item.source, said.length > 0 ? mapOf(item, said) : nothing(item)]);
}

function contextOf(tree: Tree): Tree {
  return tree.kind === 'scalar' ? mapOf(tree, [['context', tree.source]]) : tree;
}

function nothing({ at, path }: Tree): ScalarTree {
  return { kind: 'scalar', at, path, tag: '', value: null, source: '' };
}

function mapOf({ at, path }: Tree, texts: readonly [string, string][]): MapTree {
  const entries = texts.map(([key, text]): [string, Entry] => [
    key,
    { keyAt: at, value: { kind: 'scalar', at, path, tag: '', value: text, source: text } },
  ]);
  return { kind: 'map', at, path, tag: '', entries: new Map(entries) };
}

function asMap(tree: Tree, entryOf: (item: ScalarTree) => readonly [string, Tree]): Tree {
  if (tree.kind !== 'list') return tree;
  const entries = new Map<string, Entry>();
  for (const item of tree.items) {
    if (item.kind !== 'scalar') return tree;
    const [key, value] = entryOf(item);
    entries.set(key, { keyAt: item.at, value });
  }
  return { kind: 'map', at: tree.at, path: tree.path, tag: tree.tag, entries };
}

function asList(tree: Tree): Tree {
  return tree.kind === 'list' ? tree : { kind: 'list', at: tree.at, path: tree.path, tag: tree.tag, items: [tree] };
}

/** A scalar's own text, or that of a map's key. */
function textOf(tree: Tree, key: string): string | undefined {
  const value = tree.kind === 'map' ? tree.entries.get(key)?.value : tree;
  return value?.kind === 'scalar' && value.value !== null ? value.source : undefined;
}

/** Of `source:target:options`, or of the long form. */
function targetOf(item: Tree): string | undefined {
  if (item.kind === 'map') return textOf(item, 'target');
  const [first, second = first] = item.kind === 'scalar' ? item.source.split(':') : [];
  return second;
}

function mountedAt(item: Tree, directory: string): string | undefined {
  const target = (item.kind === 'map' ? textOf(item, 'target') : undefined) ?? textOf(item, 'source');
  return target === undefined || target.startsWith('/') ? target : directory + target;
}

/** `address:published:target/protocol` of both syntaxes. */
function portOf(item: Tree): string | undefined {
  if (item.kind === 'list') return undefined;
  if (item.kind === 'map') {
    const [address = '', published = '', target = '', protocol = 'tcp'] = [
      'host_ip',
      'published',
      'target',
      'protocol',
    ].map((key) => textOf(item, key));
    return `${address}:${published}:${target}/${protocol}`;
  }
  const [ports = '', protocol = 'tcp'] = item.source.split('/');
  const parts = ports.split(':');
  const target = parts.pop() ?? '';
  const published = parts.pop() ?? '';
  return `${parts.join(':')}:${published}:${target}/${protocol}`;
}

/** The same for trees that say the same, wherever they stand. */
export function fingerprint(tree: Tree): string {
  switch (tree.kind) {
    case 'scalar':
      return JSON.stringify(tree.source);
    case 'list':
      return `[${tree.items.map(fingerprint).join(',')}]`;
    case 'map':
      return `{${[...tree.entries]
        .map(([key, entry]) => `${JSON.stringify(key)}:${fingerprint(entry.value)}`)
        .sort()
        .join(',')}}`;
  }
}
