/** Holds the version that hosts are upgraded to in stories to being made of this code: what it changes is found by its text. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { ownCode } from '#node-agent/watchdog/own-code.ts';
import { otherVersion, ownVersion, writeOtherVersion } from '#test/support/other-version.ts';

const directory = mkdtempSync(join(tmpdir(), 'gantry-version-'));
afterAll(() => rmSync(directory, { recursive: true, force: true }));

it('another version can be made of this one, is called so, and has other code', () => {
  const to = join(directory, 'other');
  writeOtherVersion(to);
  expect(JSON.parse(readFileSync(join(to, 'package.json'), 'utf8'))).toMatchObject({ version: otherVersion });
  expect(ownCode(ownVersion, to)).not.toBe(ownCode(ownVersion));
});
