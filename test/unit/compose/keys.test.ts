/** The reference of keys: whole, and as the readers are. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { idleNotes, keyTable } from '#control-plane/compose/key-table.ts';
import { keysPage } from '#control-plane/compose/keys-page.ts';
import { composeSpecKeys } from '#test/support/compose-spec-keys.ts';
import { repository } from '#test/support/source-tree.ts';

const rows = keyTable();
const named = new Map(rows.map((row) => [row.path, row.honoured]));

/** Keys with a warning that all of it means nothing here. */
const past = ['services.*.build', 'services.*.develop'];

/** Read, refused by name, or below a key that is refused. */
function isKnown(path: string): boolean {
  if (named.has(path) || past.some((key) => path.startsWith(`${key}.`))) return true;
  for (let above = parentOf(path); above !== ''; above = parentOf(above))
    if (named.has(above)) return !named.get(above);
  return false;
}

const parentOf = (path: string) => path.slice(0, Math.max(0, path.lastIndexOf('.')));

it('every key that is read has a note: add its line to key-notes.ts, then npm run gen', () => {
  expect(rows.filter(({ note }) => !note).map(({ path }) => path)).toEqual([]);
});

it('every note is on a key that is read: take its line out of key-notes.ts, then npm run gen', () => {
  expect(idleNotes()).toEqual([]);
});

it('every key of the Compose Specification is honoured, or refused by name', () => {
  expect(composeSpecKeys.length).toBeGreaterThan(300);
  expect(composeSpecKeys.filter((path) => !isKnown(path))).toEqual([]);
});

it('the page is as the readers are: npm run gen writes it', () => {
  expect(readFileSync(join(repository, 'control-plane/compose/KEYS.md'), 'utf8')).toBe(keysPage());
});
