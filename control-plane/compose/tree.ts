/** YAML as a plain tree in which every key and value knows its place; anchors and merge keys are already spread out. */
import {
  type Alias,
  type Document,
  isAlias,
  isMap,
  isScalar,
  isSeq,
  LineCounter,
  type Node,
  parseAllDocuments,
  visit,
  type YAMLMap,
} from 'yaml';
import { type Findings, type Place, type Position, refuse } from './diagnostic.ts';

export type Tree = MapTree | ListTree | ScalarTree;
export interface MapTree extends Place {
  readonly kind: 'map';
  readonly entries: ReadonlyMap<string, Entry>;
  readonly tag: Tag;
  /** Of a map that stands for all maps (`key-table.ts`): its entries, once it knows which keys it may have. */
  readonly everyKey?: (known: readonly string[], later: Readonly<Record<string, string>>) => Iterable<[string, Entry]>;
}
export interface ListTree extends Place {
  readonly kind: 'list';
  readonly items: readonly Tree[];
  readonly tag: Tag;
}
export interface ScalarTree extends Place {
  readonly kind: 'scalar';
  readonly value: string | number | boolean | null;
  /** As it was written, which for `0440` and `1.10` is not what the number says. */
  readonly source: string;
  readonly tag: Tag;
}
export interface Entry {
  readonly keyAt: Position;
  readonly value: Tree;
}
/** How a later file's value meets an earlier one's: Compose's `!reset` and `!override`. */
export type Tag = '' | 'reset' | 'override';

/** Aliases multiply; a file that grows beyond this is an attack or a mistake. */
const maxNodes = 200_000;

/** A YAML file as trees, one for each of its documents that says anything; none where it is broken (the findings then say why). */
export function parseTrees(file: string, text: string, findings: Findings): readonly Tree[] {
  const lines = new LineCounter();
  const documents: readonly Document.Parsed[] = parseAllDocuments(text, {
    lineCounter: lines,
    prettyErrors: false,
    uniqueKeys: true,
  });
  const at = (offset: number): Position => {
    const { line, col } = lines.linePos(offset);
    return { file, line, column: col };
  };
  const errors = documents.flatMap((document) => document.errors);
  // A broken line makes nonsense of those after it; a key that is there twice does not.
  const [first] = errors;
  for (const error of first?.code === 'DUPLICATE_KEY' ? errors : errors.slice(0, 1)) {
    const message = error.code === 'DUPLICATE_KEY' ? 'this key is there twice' : firstLine(error.message);
    refuse(findings, { at: at(error.pos[0]), path: '' }, message, 'correct the YAML');
  }
  if (errors.length > 0) return [];
  const conversion: Conversion = { at, findings, targets: new Map(), nodes: 0, open: new Set() };
  try {
    return documents.flatMap((document) => {
      const { contents } = document;
      if (!contents || (isScalar(contents) && contents.value === null)) return [];
      conversion.targets = aliasTargets(document);
      return [convert(conversion, contents, '')];
    });
  } catch (error) {
    if (!(error instanceof TooLarge)) throw error;
    refuse(
      findings,
      { at: at(0), path: '' },
      `the file has more than ${maxNodes} values once its aliases are spread out`,
      'use fewer aliases',
    );
    return [];
  }
}

class TooLarge extends Error {}

/** What each alias stands for: the last node before it that has its anchor. One walk: asking each alias would be one for each. */
function aliasTargets(document: Document.Parsed): ReadonlyMap<Alias, Node> {
  const anchored = new Map<string, Node>();
  const targets = new Map<Alias, Node>();
  visit(document, {
    Node(_key, node) {
      if (isAlias(node)) {
        const target = anchored.get(node.source);
        if (target) targets.set(node, target);
      } else if (node.anchor) anchored.set(node.anchor, node);
    },
  });
  return targets;
}

interface Conversion {
  readonly at: (offset: number) => Position;
  readonly findings: Findings;
  targets: ReadonlyMap<Alias, Node>;
  nodes: number;
  readonly open: Set<Node>;
}

function convert(conversion: Conversion, node: Node | null, path: string, fallback = 0): Tree {
  if (++conversion.nodes > maxNodes) throw new TooLarge();
  const at = conversion.at(node?.range?.[0] ?? fallback);
  if (node === null) return { kind: 'scalar', at, path, value: null, source: '', tag: '' };
  if (isAlias(node)) {
    const target = conversion.targets.get(node);
    if (!target || conversion.open.has(target)) {
      refuse(
        conversion.findings,
        { at, path },
        target ? 'this alias contains itself' : `there is no anchor &${node.source}`,
      );
      return { kind: 'scalar', at, path, value: null, source: '', tag: '' };
    }
    return convert(conversion, target, path);
  }
  const tag = tagOf(conversion, node, at, path);
  conversion.open.add(node);
  try {
    if (isMap(node)) return { kind: 'map', at, path, entries: entriesOf(conversion, node, path), tag };
    if (isSeq(node)) {
      const items = node.items.map((item, index) =>
        convert(conversion, item as Node | null, `${path}[${index}]`, node.range?.[0]),
      );
      return { kind: 'list', at, path, items, tag };
    }
    return scalarOf(node, at, path, tag);
  } finally {
    conversion.open.delete(node);
  }
}

function scalarOf(node: Node, at: Position, path: string, tag: Tag): ScalarTree {
  const value: unknown = isScalar(node) ? node.value : null;
  const plain = typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean' ? value : null;
  const source = isScalar(node) && typeof value !== 'string' ? (node.source ?? '') : String(plain ?? '');
  return { kind: 'scalar', at, path, value: plain, source, tag };
}

function tagOf(conversion: Conversion, node: Node, at: Position, path: string): Tag {
  const tag = 'tag' in node ? node.tag : undefined;
  if (!tag || tag.startsWith('tag:yaml.org,2002:')) return '';
  if (tag === '!reset') return 'reset';
  if (tag === '!override') return 'override';
  refuse(conversion.findings, { at, path }, `the tag ${tag} means nothing in Compose`, 'remove it');
  return '';
}

/** The map's own keys over those it merges in by `<<`. */
function entriesOf(conversion: Conversion, map: YAMLMap, path: string): Map<string, Entry> {
  const own = new Map<string, Entry>();
  const merged = new Map<string, Entry>();
  for (const pair of map.items) {
    const keyNode = pair.key as Node | null;
    const keyAt = conversion.at(keyNode?.range?.[0] ?? map.range?.[0] ?? 0);
    const key = isScalar(keyNode)
      ? typeof keyNode.value === 'string'
        ? keyNode.value
        : (keyNode.source ?? '')
      : undefined;
    if (key === undefined) {
      refuse(conversion.findings, { at: keyAt, path }, 'a key must be plain text');
      continue;
    }
    const value = pair.value as Node | null;
    if (key === '<<' && isScalar(keyNode) && keyNode.type === 'PLAIN') {
      for (const [name, entry] of mergedEntries(conversion, value, path, keyAt))
        if (!merged.has(name)) merged.set(name, entry);
      continue;
    }
    own.set(key, { keyAt, value: convert(conversion, value, path ? `${path}.${key}` : key, keyNode?.range?.[2]) });
  }
  for (const [key, entry] of own) merged.set(key, entry);
  return merged;
}

function mergedEntries(
  conversion: Conversion,
  value: Node | null,
  path: string,
  keyAt: Position,
): Iterable<[string, Entry]> {
  const tree = convert(conversion, value, path);
  const maps = tree.kind === 'list' ? tree.items : [tree];
  const entries = new Map<string, Entry>();
  for (const map of maps) {
    if (map.kind !== 'map') {
      refuse(conversion.findings, { at: keyAt, path }, '<< takes a map, or a list of maps', 'write << : *anchor');
      continue;
    }
    for (const [key, entry] of map.entries)
      if (!entries.has(key)) entries.set(key, { ...entry, value: rebased(entry.value, path ? `${path}.${key}` : key) });
  }
  return entries;
}

/** The same tree, standing at another path. */
export function rebased(tree: Tree, path: string): Tree {
  switch (tree.kind) {
    case 'scalar':
      return { ...tree, path };
    case 'list':
      return { ...tree, path, items: tree.items.map((item, index) => rebased(item, `${path}[${index}]`)) };
    case 'map': {
      const entries = new Map<string, Entry>();
      for (const [key, entry] of tree.entries)
        entries.set(key, { ...entry, value: rebased(entry.value, path ? `${path}.${key}` : key) });
      return { ...tree, path, entries };
    }
  }
}

/** The tree with every scalar put through `change`; keys stay. */
export function mapScalars(tree: Tree, change: (scalar: ScalarTree) => ScalarTree): Tree {
  switch (tree.kind) {
    case 'scalar':
      return change(tree);
    case 'list':
      return { ...tree, items: tree.items.map((item) => mapScalars(item, change)) };
    case 'map': {
      const entries = new Map<string, Entry>();
      for (const [key, entry] of tree.entries) entries.set(key, { ...entry, value: mapScalars(entry.value, change) });
      return { ...tree, entries };
    }
  }
}

export function withoutKey(map: MapTree, key: string): MapTree {
  const entries = new Map(map.entries);
  entries.delete(key);
  return { ...map, entries };
}

/** The tree with the value of one key changed, where it has that key. */
export function mapEntry(tree: Tree, key: string, change: (value: Tree) => Tree): Tree {
  const entry = tree.kind === 'map' ? tree.entries.get(key) : undefined;
  if (tree.kind !== 'map' || !entry) return tree;
  return { ...tree, entries: new Map(tree.entries).set(key, { ...entry, value: change(entry.value) }) };
}

/** The tree with each value of a map, or item of a list, changed; a scalar is its own only item. */
export function mapItems(tree: Tree, change: (item: Tree) => Tree): Tree {
  if (tree.kind === 'scalar') return change(tree);
  if (tree.kind === 'list') return { ...tree, items: tree.items.map(change) };
  const entries = new Map<string, Entry>();
  for (const [key, entry] of tree.entries) entries.set(key, { ...entry, value: change(entry.value) });
  return { ...tree, entries };
}

/** The tree without what `!reset` takes away. */
export function withoutResets(tree: Tree): Tree {
  if (tree.kind === 'scalar') return tree;
  if (tree.kind === 'list')
    return { ...tree, items: tree.items.filter(({ tag }) => tag !== 'reset').map(withoutResets) };
  const entries = new Map<string, Entry>();
  for (const [key, entry] of tree.entries)
    if (entry.value.tag !== 'reset') entries.set(key, { ...entry, value: withoutResets(entry.value) });
  return { ...tree, entries };
}

/** The value below `tree` at these keys; undefined where there is none. */
export function child(tree: Tree | undefined, ...keys: readonly string[]): Tree | undefined {
  let at = tree;
  for (const key of keys) at = at?.kind === 'map' ? at.entries.get(key)?.value : undefined;
  return at;
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0] ?? text;
}
