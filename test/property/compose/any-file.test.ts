/** Whatever stands at whichever key: the resolver answers, and what it refuses has a place. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { keyTable } from '#control-plane/compose/key-table.ts';
import { resolveFiles } from '#test/support/compose.ts';

const leaf = fc.oneof(
  fc.constantFrom(
    '',
    'a',
    'web',
    'default',
    '80:80',
    '10s',
    '64m',
    '/x',
    './x:/x',
    'data:/x',
    'a=b',
    'service:web',
    '$A',
    '${A:?}',
  ),
  fc.constantFrom(null, true, false, 0, 1, -1, 0.5, 8080),
);
const value: fc.Arbitrary<unknown> = fc.oneof(
  { maxDepth: 2, depthSize: 'small' },
  leaf,
  fc.array(leaf, { maxLength: 3 }),
  fc.dictionary(fc.constantFrom('default', 'web', 'a', 'nofile', 'name', 'source', 'target'), leaf, { maxKeys: 3 }),
);
const paths = keyTable()
  .filter(({ honoured }) => honoured)
  .map(({ path }) => path.split('.'));

/** A file that has something at these keys, where a name is free one of the usual. */
function fileOf(said: readonly (readonly [path: readonly string[], value: unknown, list: boolean])[]): string {
  const file: Record<string, unknown> = { services: { web: { image: 'a' }, default: { image: 'b' } } };
  for (const [path, value, list] of said) {
    let at = file;
    for (const [index, part] of path.entries()) {
      const key = part === '*' ? (index === 1 ? (path[0] === 'services' ? 'web' : 'default') : 'default') : part;
      if (index === path.length - 1) at[key] = value;
      else {
        const below = Array.isArray(at[key]) ? (at[key] as unknown[])[0] : at[key];
        const next = typeof below === 'object' && below !== null ? (below as Record<string, unknown>) : {};
        at[key] = list && index > 1 && index === path.length - 2 ? [next] : next;
        at = next;
      }
    }
  }
  return JSON.stringify(file);
}

it('answers with specs, or with errors that have a place and words', () => {
  const kinds = new Set<string>();
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.constantFrom(...paths), value, fc.boolean()), { minLength: 1, maxLength: 4 }),
      (said) => {
        const resolution = resolveFiles({ 'compose.yaml': fileOf(said) });
        kinds.add(resolution.kind);
        if (resolution.kind === 'needs') throw new Error('it was told everything');
        for (const { file, line, column, message } of resolution.kind === 'errors' ? resolution.errors : [])
          expect(file !== '' && line >= 1 && column >= 1 && message !== '').toBe(true);
      },
    ),
    { numRuns: 3_000 },
  );
  expect([...kinds].sort()).toEqual(['errors', 'specs']);
});
