/** Reading typed values out of the tree; each reader says what it wanted where it finds something else. */
import { type Findings, refuse, suggestion, warn } from './diagnostic.ts';
import type { Entry, ScalarTree, Tree } from './tree.ts';
import { parseBytes, parseCpus, parseDuration } from './units.ts';

/** True for a value that is as good as not there. */
export function isNull(tree: Tree): boolean {
  return tree.tag === 'reset' || (tree.kind === 'scalar' && tree.value === null);
}

/** What a key means to `target`. */
export type KeyReader<Target> = (target: Target, value: Tree, entry: Entry) => void;

/** A map whose keys are known: those of `readers` are read, those of `later` refused with a remedy, others with a guess; other `x-` keys are ignored, with a warning where one looks like a slip. */
export function readKeys<Target>(
  findings: Findings,
  tree: Tree,
  what: string,
  target: Target,
  readers: Readonly<Record<string, KeyReader<Target>>>,
  later: Readonly<Record<string, string>> = {},
): void {
  if (isNull(tree)) return;
  if (tree.kind !== 'map') {
    refuse(findings, tree, `${what} must be a map`, 'write key: value lines');
    return;
  }
  for (const [key, entry] of tree.everyKey?.(Object.keys(readers), later) ?? tree.entries) {
    const reader = Object.hasOwn(readers, key) ? readers[key] : undefined;
    if (reader) {
      if (!isNull(entry.value)) reader(target, entry.value, entry);
      continue;
    }
    const place = { at: entry.keyAt, path: tree.path ? `${tree.path}.${key}` : key };
    if (key.startsWith('x-') && !Object.hasOwn(later, key)) {
      const meant = suggestion(
        key,
        Object.keys(readers).filter((one) => one.startsWith('x-')),
      );
      if (meant) warn(findings, place, `"${key}" is ignored`, `did you mean "${meant}"?`);
      continue;
    }
    if (Object.hasOwn(later, key)) refuse(findings, place, `"${key}" is not supported by Gantry yet`, later[key]);
    else {
      const guess = suggestion(key, [...Object.keys(readers), ...Object.keys(later)]);
      refuse(
        findings,
        place,
        `unknown key "${key}"`,
        guess ? `did you mean "${guess}"?` : `remove it: ${what} has no such key`,
      );
    }
  }
}

function describe(tree: Tree): string {
  if (tree.kind !== 'scalar') return tree.kind === 'map' ? 'a map' : 'a list';
  return typeof tree.value === 'string' ? `"${tree.value}"` : tree.source || 'nothing';
}

function wrong(findings: Findings, tree: Tree, wanted: string): undefined {
  return refuse(findings, tree, `${describe(tree)} is not ${wanted}`, `write ${wanted}`);
}

/** Text; numbers and booleans as they are written. */
export function readText(findings: Findings, tree: Tree, wanted = 'text'): string | undefined {
  return tree.kind === 'scalar' && tree.value !== null ? tree.source : wrong(findings, tree, wanted);
}

/** `external: true`, or in the older way `external: { name: … }`. */
export function readExternal(findings: Findings, tree: Tree): { readonly external: boolean; readonly name?: string } {
  if (tree.kind !== 'map') return { external: readBoolean(findings, tree) ?? false };
  const said: { external: boolean; name?: string } = { external: true };
  readKeys(findings, tree, 'external', said, {
    name: (said, value) => {
      said.name = readText(findings, value) ?? '';
    },
  });
  return said;
}

export function readBoolean(findings: Findings, tree: Tree): boolean | undefined {
  const text = tree.kind === 'scalar' ? tree.source.toLowerCase() : '';
  if (['true', 'yes', 'on', 'y'].includes(text)) return true;
  if (['false', 'no', 'off', 'n'].includes(text)) return false;
  return wrong(findings, tree, 'true or false');
}

/** An integer in [least, most]; as text too, for it may come from a variable. */
export function readInteger(findings: Findings, tree: Tree, least = 0, most: number = 2 ** 31 - 1): number | undefined {
  const wanted =
    most === 2 ** 31 - 1 ? `a whole number of at least ${least}` : `a whole number from ${least} to ${most}`;
  if (tree.kind !== 'scalar' || !/^[+-]?\d+$/.test(tree.source)) return wrong(findings, tree, wanted);
  const value = Number(tree.source);
  return value >= least && value <= most ? value : wrong(findings, tree, wanted);
}

export function readNumber(findings: Findings, tree: Tree, least: number, most: number): number | undefined {
  const value = tree.kind === 'scalar' && tree.source !== '' ? Number(tree.source) : Number.NaN;
  return value >= least && value <= most ? value : wrong(findings, tree, `a number from ${least} to ${most}`);
}

/** ms. */
export function readDuration(findings: Findings, tree: Tree): number | undefined {
  const value = tree.kind === 'scalar' ? parseDuration(tree.source) : undefined;
  return value ?? wrong(findings, tree, 'a duration such as 10s or 1m30s');
}

export function readBytes(findings: Findings, tree: Tree): number | undefined {
  const value = tree.kind === 'scalar' ? parseBytes(tree.source) : undefined;
  return value ?? wrong(findings, tree, 'a size such as 64M or 1g');
}

/** Thousandths of a core. */
export function readCpus(findings: Findings, tree: Tree): number | undefined {
  const value = tree.kind === 'scalar' ? parseCpus(tree.source) : undefined;
  return value ?? wrong(findings, tree, 'a number of cores such as 0.5');
}

export function readOneOf<T extends string>(findings: Findings, tree: Tree, allowed: readonly T[]): T | undefined {
  const text = tree.kind === 'scalar' ? tree.source : '';
  if ((allowed as readonly string[]).includes(text)) return text as T;
  const guess = suggestion(text, allowed);
  return refuse(
    findings,
    tree,
    `${describe(tree)} is not one of ${allowed.join(', ')}`,
    guess ? `did you mean "${guess}"?` : `write one of ${allowed.join(', ')}`,
  );
}

/** The items of a list, those that are scalars; `alone`: one scalar will do. */
export function readScalars(findings: Findings, tree: Tree, options: { readonly alone?: boolean } = {}): ScalarTree[] {
  if (options.alone && tree.kind === 'scalar') return [tree];
  if (tree.kind !== 'list') {
    wrong(findings, tree, options.alone ? 'text or a list of texts' : 'a list');
    return [];
  }
  return tree.items.filter((item): item is ScalarTree => {
    if (item.kind === 'scalar' && item.value !== null) return true;
    wrong(findings, item, 'text');
    return false;
  });
}

/** The texts of a list. */
export function readTexts(findings: Findings, tree: Tree, options: { readonly alone?: boolean } = {}): string[] {
  return readScalars(findings, tree, options).map((item) => item.source);
}

/** A NAME=VALUE pair with its place. `value` undefined: the name stood alone. */
export interface Pair {
  readonly name: string;
  readonly value: string | undefined;
  readonly tree: Tree;
}

/** A map of scalars, or a list of NAME=VALUE, in order; a name given twice keeps its last value. */
export function readPairs(findings: Findings, tree: Tree, separator: RegExp = /=/): Pair[] {
  const pairs = new Map<string, Pair>();
  if (tree.kind === 'map') {
    for (const [name, { value }] of tree.entries) {
      if (value.kind !== 'scalar') wrong(findings, value, 'text');
      else pairs.set(name, { name, value: value.value === null ? undefined : value.source, tree: value });
    }
  } else if (tree.kind === 'list') {
    for (const item of readScalars(findings, tree)) {
      const cut = item.source.search(separator);
      const name = cut < 0 ? item.source : item.source.slice(0, cut);
      if (name === '') refuse(findings, item, `"${item.source}" has no name before the "="`, 'write NAME=VALUE');
      else pairs.set(name, { name, value: cut < 0 ? undefined : item.source.slice(cut + 1), tree: item });
    }
  } else wrong(findings, tree, 'a map, or a list of NAME=VALUE');
  return [...pairs.values()];
}

/** Pairs as a record; a name alone is empty. */
export function readRecord(findings: Findings, tree: Tree, separator?: RegExp): Record<string, string> {
  return Object.fromEntries(readPairs(findings, tree, separator).map(({ name, value }) => [name, value ?? '']));
}
