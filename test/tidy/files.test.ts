/** Holds the shape of the tree: its top-level names, its file names, and what every file begins with. */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { filesBelow, repository, rooms, sourceFiles } from '#test/support/source-tree.ts';

const files = sourceFiles();
const lineLimit = 500;

test('the top level holds the agreed names and nothing else', () => {
  const fixed = ['package.json', 'tsconfig.json', 'README.md', ...rooms];
  const beside = [
    'LICENSE',
    'package-lock.json',
    'biome.json',
    'buf.yaml',
    'buf.gen.yaml',
    'vitest.config.ts',
    'examples',
  ];
  const found = readdirSync(repository).filter((name) => !name.startsWith('.') && name !== 'node_modules');
  expect(found.filter((name) => !fixed.includes(name) && !beside.includes(name))).toEqual([]);
  expect(fixed.filter((name) => !found.includes(name))).toEqual([]);
});

test('examples are Compose files', () => {
  const other = filesBelow(join(repository, 'examples')).filter((file) => !/\.(ya?ml|env)$/.test(file));
  expect(other).toEqual([]);
});

test('every room has a README', () => {
  expect(rooms.filter((room) => !existsSync(join(repository, room, 'README.md')))).toEqual([]);
});

test('file names are kebab-case and say what is in them', () => {
  const misnamed = files.filter(({ path }) => {
    const name = path.slice(path.lastIndexOf('/') + 1);
    return (
      !/^[a-z0-9]+(-[a-z0-9]+)*(\.(test|bench))?\.ts$/.test(name) ||
      /(^|-)(utils?|helpers?|common|misc)(-|\.)|(^|-)manager\./.test(name)
    );
  });
  expect(misnamed.map((file) => file.path)).toEqual([]);
});

test('every file begins with the sentence that says why it exists', () => {
  const silent = files.filter(({ text }) => !/^(#!.*\n)?(\/\*\*?\s*\n?\s*\*?\s*\S|\/\/ \S)/.test(text));
  expect(silent.map((file) => file.path)).toEqual([]);
});

test(`no file is longer than ${lineLimit} lines`, () => {
  const long = files.flatMap(({ path, text }) => {
    const lines = text.trimEnd().split('\n').length;
    return lines > lineLimit ? [`${path} has ${lines}`] : [];
  });
  expect(long).toEqual([]);
});

test('the lock file lists every optional package of every platform, as npm ci demands', () => {
  const lock = JSON.parse(readFileSync(join(repository, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, { optionalDependencies?: Record<string, string> }>;
  };
  const missing = Object.entries(lock.packages).flatMap(([path, one]) =>
    Object.keys(one.optionalDependencies ?? {}).filter(
      (name) => !lock.packages[`node_modules/${name}`] && !lock.packages[`${path}/node_modules/${name}`],
    ),
  );
  expect(missing).toEqual([]);
});
