/** Which Compose files a command takes, and what of the machine it tells the control plane. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { answerNeeds, composeRequest, type FileOptions, seenFromHere } from '#control-plane/cli/compose-files.ts';
import { ApplyResponse } from '#proto/gen/gantry/v1/operator.ts';

const home = process.cwd();
const ownVariables = ['COMPOSE_FILE', 'COMPOSE_PATH_SEPARATOR', 'COMPOSE_ENV_FILES'];
let root = '';

beforeEach(() => {
  root = mkdtempSync(join(tmpdir(), 'gantry-compose-files-'));
  process.chdir(root);
});
afterEach(() => {
  process.chdir(home);
  for (const name of ownVariables) delete process.env[name];
  rmSync(root, { recursive: true });
});

function write(files: Readonly<Record<string, string>>): void {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
  }
}

describe('the files of a command', () => {
  const taken = (options: FileOptions = {}) => {
    const { files, directory, root: at } = composeRequest(options);
    return { files: files.map(({ path }) => path), directory, at: at.slice(root.length) };
  };

  it('are the usual one with its override, of this directory or of the nearest above', () => {
    write({ 'shop/compose.yml': 'a', 'shop/compose.override.yaml': 'b', 'docker-compose.yml': 'c', 'shop/deep/x': '' });
    process.chdir('shop');
    const found = { files: ['compose.yml', 'compose.override.yaml'], directory: 'shop', at: '/shop' };
    expect(taken()).toEqual(found);
    process.chdir('deep');
    expect(taken()).toEqual({ ...found, files: ['../compose.yml', '../compose.override.yaml'] });
    expect(composeRequest({}).files.map(({ text }) => text)).toEqual(['a', 'b']);
  });

  it('are those of -f, and paths begin beside the first, or where it is said', () => {
    write({ 'a/one.yaml': '', 'b/two.yaml': '', 'compose.yaml': '' });
    const file = ['a/one.yaml', 'b/two.yaml'];
    expect(taken({ file })).toEqual({ files: file, directory: 'a', at: '/a' });
    expect(taken({ file, projectDirectory: 'b' })).toEqual({ files: file, directory: 'b', at: '/b' });
    expect(() => taken({ file: ['c.yaml'] })).toThrow('c.yaml is not there');
  });

  it('are those of COMPOSE_FILE, of the environment or of .env', () => {
    write({ 'one.yaml': '', 'two.yaml': '', 'compose.yaml': '', '.env': 'COMPOSE_FILE=two.yaml\n' });
    expect(taken().files).toEqual(['two.yaml']);
    process.env.COMPOSE_FILE = 'one.yaml:two.yaml';
    expect(taken().files).toEqual(['one.yaml', 'two.yaml']);
    process.env.COMPOSE_FILE = 'two.yaml;one.yaml';
    process.env.COMPOSE_PATH_SEPARATOR = ';';
    expect(taken().files).toEqual(['two.yaml', 'one.yaml']);
    expect(taken({ file: ['compose.yaml'] }).files).toEqual(['compose.yaml']);
  });

  it('are not there where nothing is', () => {
    expect(() => taken()).toThrow('there is no Compose file here');
  });

  it('have env files that are seen from the project', () => {
    write({ 'a/compose.yaml': '', 'x.env': '' });
    const options = { file: ['a/compose.yaml'], envFile: ['x.env'], profile: ['dev'] };
    expect(composeRequest(options)).toMatchObject({ envFiles: ['../x.env'], profiles: ['dev'] });
    process.env.COMPOSE_ENV_FILES = 'x.env, a/y.env';
    expect(composeRequest({ file: ['a/compose.yaml'] }).envFiles).toEqual(['../x.env', 'y.env']);
  });
});

describe('a question of the control plane', () => {
  const asked = (text: string, ...needsFiles: string[]) => {
    write({ 'shop/compose.yaml': text });
    const request = composeRequest({ file: ['shop/compose.yaml'] });
    const ask = (...files: string[]) => answerNeeds(request, ApplyResponse.create({ needsFiles: files }));
    ask(...needsFiles);
    return { request, ask };
  };

  it('is answered with what lies beside the files, and with what they name', () => {
    write({ 'shop/.env': 'A=1', 'lib/x.yaml': 'env_file: ../other/b.env', 'other/b.env': 'B=1' });
    const { request, ask } = asked('include: [../lib/x.yaml]', '.env', '../lib/x.yaml', '../lib/.env', 'no.env');
    ask('../other/b.env');
    expect(
      request.files.slice(1).map(({ path, text, missing }) => (missing ? `no ${path}` : `${path}: ${text}`)),
    ).toEqual([
      '.env: A=1',
      '../lib/x.yaml: env_file: ../other/b.env',
      'no ../lib/.env',
      'no no.env',
      '../other/b.env: B=1',
    ]);
    expect(seenFromHere(request, '../lib/x.yaml')).toBe('lib/x.yaml');
    expect(seenFromHere(request, 'shop/compose.yaml')).toBe('shop/compose.yaml');
  });

  it('is answered where variables make the name, or a directory is named for it', () => {
    write({ 'shop/.env': 'LIB=../lib\n', 'lib/x.yaml': '', 'other/b.env': '', 'shop/x.yaml': 'env_file: b.env' });
    asked('include: ["${LIB}/x.yaml", "${OTHER:-../other}/b.env"]', '.env').ask('../lib/x.yaml', '../other/b.env');
    const text = 'include: [{ path: x.yaml, project_directory: ../other }]';
    asked(text, 'x.yaml', '../other/.env').ask('../other/b.env');
  });

  it('for what lies beside a file that is named, and is not named, is refused', () => {
    write({ 'lib/x.yaml': 'env_file: y.env', 'lib/z': '' });
    const { ask } = asked('include: [../lib/x.yaml]', '../lib/x.yaml');
    ask('../lib/y.env');
    expect(() => ask('../lib/z')).toThrow('asks for the file ../lib/z');
  });

  it.each(['/etc/shadow', '../../etc/passwd', '../lib/x.yaml', '../shop2/x'])('for %s is refused', (path) => {
    write({ 'lib/x.yaml': '', '.env': '' });
    expect(() => asked('services: { web: { image: a } }', path)).toThrow(`asks for the file ${path}`);
  });
});
