/** Nothing lies around: a file, an export or a package that nobody uses is taken away. */
import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { repository } from '#test/support/source-tree.ts';

test('every file, export and package is used', () => {
  const args = ['--include', 'files,exports,dependencies,unlisted', '--no-config-hints', '--reporter', 'compact'];
  const result = spawnSync('node_modules/.bin/knip', args, { cwd: repository, encoding: 'utf8' });
  const lines = `${result.stdout}${result.stderr}`.split('\n').filter((line) => line.trim() !== '');
  expect(lines).toEqual([]);
  expect(result.status).toBe(0);
});
