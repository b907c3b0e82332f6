/** Our nftables table, read back in the words of the plan. */
import type { TableSeen } from '#net/plan/diff.ts';
import type { FamilyName } from '#net/plan/family.ts';
import { type Declarations, tableName } from '#net/plan/rules.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { inPrivateNetns } from './netns.ts';
import type { NftTable } from './nft-netlink.ts';
import { Nftables, type NftFields, type NftObject } from './nftables.ts';

/**
 * The kernel's own form of each declaration, found by declaring them in a private namespace: comparing a listing with
 * that needs no knowledge of how nft prints what it is given.
 */
export class CanonicalForms {
  readonly #forms = new Map<string, string>();

  /** By name, for declarations that make up a whole table. */
  of(family: FamilyName, declarations: Declarations): ReadonlyMap<string, string> {
    const key = (body: string) => `${family} ${body}`;
    if ([...declarations.values()].some((body) => !this.#forms.has(key(body)))) {
      const bodies = [...declarations.values()].join('\n');
      const listed = inPrivateNetns(() => {
        const nftables = new Nftables();
        try {
          nftables.listSync(`table ${family} ${tableName} {\n${bodies}\n}\n`);
          return readForms(nftables.listSync(`list table ${family} ${tableName}`));
        } finally {
          nftables.closeSync();
        }
      });
      for (const old of this.#forms.keys()) if (old.startsWith(key(''))) this.#forms.delete(old);
      for (const [name, body] of declarations) this.#forms.set(key(body), listed.get(name) ?? '');
    }
    return new Map([...declarations].map(([name, body]) => [name, this.#forms.get(key(body)) ?? '']));
  }
}

/** Our table of a family as it is now; undefined where there is none among `tables`. */
export async function readTable(
  nftables: Nftables,
  tables: readonly NftTable[],
  family: FamilyName,
  wanted: Declarations,
  forms: CanonicalForms,
): Promise<TableSeen | undefined> {
  const own = tables.find((table) => table.family === family && table.name === tableName);
  if (!own) return undefined;
  // Ours has no flags: somebody has put it to sleep, and nothing in it is of use.
  if (own.flags !== 0) return { declarations: new Map(), elements: new Map() };
  let objects: readonly NftObject[];
  try {
    objects = await nftables.list(`list table ${family} ${tableName}`);
  } catch (error) {
    // Gone between the two questions, or in a state nft itself cannot list: replace it.
    if (isFault(error, 'invalid')) return undefined;
    throw error;
  }
  const expected = forms.of(family, wanted);
  const declarations = new Map<string, string>();
  for (const [name, form] of readForms(objects)) {
    declarations.set(name, form === expected.get(name) ? (wanted.get(name) ?? form) : form);
  }
  return { declarations, elements: readElements(objects) };
}

/** Each set's and chain's definition with its rules, without handles and elements, by name. */
function readForms(objects: readonly NftObject[]): Map<string, string> {
  const parts = new Map<string, unknown[]>();
  for (const object of objects) {
    const [kind, fields] = Object.entries(object)[0] as [string, NftFields];
    if (kind === 'metainfo' || kind === 'table') continue;
    const { handle: _handle, elem: _elements, ...rest } = fields;
    const name = kind === 'rule' ? String(fields.chain) : String(fields.name);
    const list = parts.get(name);
    if (list) list.push([kind, rest]);
    else parts.set(name, [[kind, rest]]);
  }
  return new Map([...parts].map(([name, list]) => [name, JSON.stringify(list)]));
}

function readElements(objects: readonly NftObject[]): Map<string, string> {
  const elements = new Map<string, string>();
  for (const object of objects) {
    if (object.map) {
      for (const [key, value] of (object.map.elem ?? []) as [unknown, unknown][]) {
        elements.set(`${object.map.name} ${words(key)}`, words(value));
      }
    } else if (object.set) {
      for (const key of object.set.elem ?? []) elements.set(`${object.set.name} ${words(key)}`, '');
    }
  }
  return elements;
}

/** nft's language for an expression of its JSON, of those that occur in our elements. */
export function words(expression: unknown): string {
  if (typeof expression !== 'object' || expression === null) return String(expression);
  const { concat, goto, elem, prefix } = expression as {
    concat?: readonly unknown[];
    prefix?: { addr: string; len: number };
    goto?: { target: string };
    elem?: { val: unknown };
  };
  if (concat) return concat.map(words).join(' . ');
  if (prefix) return `${prefix.addr}/${prefix.len}`;
  if (goto) return `goto ${goto.target}`;
  return elem ? words(elem.val) : JSON.stringify(expression);
}
