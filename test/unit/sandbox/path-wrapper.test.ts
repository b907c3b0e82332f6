/** `gantry` on the PATH: it never takes another program's place, and says what is wrong where what it runs is gone. */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { installWrapper, isOurs } from '#node-agent/sandbox/path-wrapper.ts';

let root: string;
let path: string;
let main: string;
beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gantry-wrapper-'));
  path = join(root, 'gantry');
  main = join(root, 'main.mjs');
  writeFileSync(main, 'console.log(...process.argv.slice(2)); process.exit(7);');
});
afterEach(() => rmSync(root, { recursive: true, force: true }));

const install = () => installWrapper(path, { node: process.execPath, main, cache: join(root, 'cache') });

it('runs Gantry with what it is given, and its exit code', () => {
  expect(install()).toBe(true);
  expect(install()).toBe(true);
  expect(isOurs(path)).toBe(true);
  expect(spawnSync(path, ['a b', 'c'], { encoding: 'utf8' })).toMatchObject({ status: 7, stdout: 'a b c\n' });
});

it('says where it was and what to do, once that is gone', () => {
  install();
  rmSync(main);
  const { status, stderr } = spawnSync(path, ['ps'], { encoding: 'utf8' });
  expect(status).toBe(127);
  expect(stderr).toBe(
    `gantry: this is run from ${main}, which is gone\n  → npm start where Gantry is now, or rm ${path}\n`,
  );
});

it('leaves what is another program’s, and takes the place of a link to nothing', () => {
  writeFileSync(path, '#!/bin/sh\n# of somebody else\n');
  expect(install()).toBe(false);
  expect(readFileSync(path, 'utf8')).toContain('somebody else');
  rmSync(path);
  const other = join(root, 'other');
  writeFileSync(other, 'theirs');
  symlinkSync(other, path);
  expect(install()).toBe(false);
  expect(isOurs(path)).toBe(false);
  rmSync(other);
  expect(install()).toBe(true);
  expect(isOurs(path)).toBe(true);
});
