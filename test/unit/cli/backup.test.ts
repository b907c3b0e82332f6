/** A backup that cannot be written where it is wanted. */
import { tmpdir } from 'node:os';
import { expect, test } from 'vitest';
import { startCli } from '#test/support/cli.ts';

test('is refused in words, and the stream that nobody reads any more says nothing after them', async () => {
  const place = { directory: tmpdir(), socket: '/nosuch/socket' };
  const { code, stderr } = await startCli(place, ['cluster', 'backup', '/nosuch/x']).end;
  expect(stderr).toContain('/nosuch/x cannot be written: ENOENT');
  expect(stderr).not.toMatch(/UNAVAILABLE| at /);
  expect(code).toBe(2);
});
