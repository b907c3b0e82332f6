/** A sandbox that is named but not there is told from one that is, with the names there are. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { findSandbox } from '#node-agent/sandbox/sandbox.ts';

const root = mkdtempSync(join(tmpdir(), 'gsbx-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));

it('is found by its disk, and missed with the names of the others', () => {
  for (const name of ['kept', 'other']) mkdirSync(join(root, name));
  expect(findSandbox('kept', root).layout.dir).toBe(join(root, 'kept'));
  // Sandboxes of this machine that run are among them, whatever their root.
  expect(() => findSandbox('nosuch', root)).toThrow(
    expect.objectContaining({
      code: 'precondition',
      message: 'there is no sandbox nosuch',
      remedy: expect.stringMatching(/^there are .*kept.*other.*; or start it: gantry sandbox --name nosuch up$/),
    }),
  );
});
