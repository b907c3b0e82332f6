/** Several files as one, by the Compose Specification's rules: maps meet key by key, lists append, commands replace. */
import { type Entry, type ListTree, type MapTree, rebased, type Tree } from './tree.ts';

/** Lists that a later file replaces rather than adds to. */
const replaced = [/^services\.[^.]+\.(command|entrypoint)$/, /^services\.[^.]+\.healthcheck\.test$/];
/** Lists of NAME=VALUE that are maps in truth. */
const pairs = /^(services\.[^.]+\.(environment|labels|sysctls|extra_hosts|deploy\.labels)|networks\.[^.]+\.labels)$/;
/** Lists of names that are maps in truth. */
const names = /^services\.[^.]+\.networks$/;
/** Lists in which the last word about a target stands. */
const byTarget = /^services\.[^.]+\.volumes$/;
/** Keys that are a string or a list, and append. */
const stringOrList = /^services\.[^.]+\.(dns|dns_search|env_file|tmpfs|x-allow-from)$/;

/** `later` laid over `earlier`. */
export function merge(earlier: Tree, later: Tree): Tree {
  return rebased(mergeAt(earlier, later, ''), '');
}

function mergeAt(earlier: Tree, later: Tree, path: string): Tree {
  if (later.tag === 'override' || replaced.some((pattern) => pattern.test(path))) return later;
  if (pairs.test(path)) return mergeMaps(asMap(earlier, path), asMap(later, path), path);
  if (names.test(path) && earlier.kind !== later.kind) return mergeMaps(asMap(earlier, path), asMap(later, path), path);
  if (stringOrList.test(path)) return mergeLists(asList(earlier), asList(later), path);
  if (earlier.kind === 'map' && later.kind === 'map') return mergeMaps(earlier, later, path);
  if (earlier.kind === 'list' && later.kind === 'list') return mergeLists(earlier, later, path);
  return later;
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

function mergeLists(earlier: Tree, later: Tree, path: string): Tree {
  if (earlier.kind !== 'list' || later.kind !== 'list') return later;
  const items = new Map<string, Tree>();
  for (const item of [...earlier.items, ...later.items]) {
    const identity = (byTarget.test(path) ? targetOf(item) : undefined) ?? fingerprint(item);
    items.set(identity, item);
  }
  return { ...later, items: [...items.values()] } satisfies ListTree;
}

function asMap(tree: Tree, path: string): Tree {
  if (tree.kind !== 'list') return tree;
  const entries = new Map<string, Entry>();
  const separator = path.endsWith('extra_hosts') ? /[:=]/ : /=/;
  for (const item of tree.items) {
    if (item.kind !== 'scalar') return tree;
    const cut = item.source.search(separator);
    const key = cut < 0 ? item.source : item.source.slice(0, cut);
    const text = cut < 0 ? null : item.source.slice(cut + 1);
    entries.set(key, { keyAt: item.at, value: { ...item, value: text, source: text ?? '' } });
  }
  return { kind: 'map', at: tree.at, path: tree.path, tag: tree.tag, entries };
}

function asList(tree: Tree): Tree {
  return tree.kind === 'scalar' && tree.value !== null
    ? { kind: 'list', at: tree.at, path: tree.path, tag: tree.tag, items: [tree] }
    : tree;
}

function targetOf(item: Tree): string | undefined {
  if (item.kind === 'scalar') {
    const parts = item.source.split(':');
    return parts.length > 1 ? parts[1] : parts[0];
  }
  const target = item.kind === 'map' ? item.entries.get('target')?.value : undefined;
  return target?.kind === 'scalar' ? target.source : undefined;
}

/** The same for trees that say the same, wherever they stand. */
function fingerprint(tree: Tree): string {
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
