/** Every fault that has broken the systems of this field, by its number in ../shared/FAULTS.md, is named by a test that makes it. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { filesBelow } from '#test/support/source-tree.ts';

it('each of F1 to F36 is in the name of a test', () => {
  const named = new Set<string>();
  for (const path of filesBelow(join(import.meta.dirname, '..'))) {
    if (!path.endsWith('.ts')) continue;
    const text = readFileSync(path, 'utf8');
    for (const [, number] of text.matchAll(/^\s*(?:(?:it|test)[.(]|['"`]|\[['"`]).*?\b(F\d{1,2}): /gm))
      named.add(number as string);
  }
  const missing = Array.from({ length: 36 }, (_, index) => `F${index + 1}`).filter((number) => !named.has(number));
  expect(missing).toEqual([]);
});
