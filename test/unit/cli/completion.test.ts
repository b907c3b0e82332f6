/** What a shell offers next, out of the command line as it is declared. */
import { expect, it } from 'vitest';
import { kinds } from '#control-plane/cli/completion.ts';
import { createProgram } from '#control-plane/cli/program.ts';
import { nextOf } from '#proto/next-word.ts';

const next = (...words: string[]) =>
  nextOf(
    createProgram(() => {}),
    words,
    kinds,
  );

it('commands first, those of others not among them', () => {
  const { words } = next('');
  expect(words).toEqual(expect.arrayContaining(['apply', 'sandbox', 'why', 'help']));
  expect(words).not.toContain('up');
  expect(next('--context', 'far', '').words).toEqual(words);
});

it('then what is below them, and their options', () => {
  expect(next('rollout', '').words).toEqual(['status', 'pause', 'resume', 'undo', 'help']);
  expect(next('apply', '--').words).toEqual(expect.arrayContaining(['--file', '--prune', '--detach', '--json']));
  expect(next('completion', '').words).toEqual(['bash']);
});

it.each([
  [['scale', ''], ['service']],
  [['scale', 'web=3', ''], ['service']],
  [['rm', '-d', 'web', ''], ['service']],
  [
    ['logs', '-n', '5', ''],
    ['service', 'task'],
  ],
  [
    ['why', ''],
    ['task', 'node'],
  ],
  [['exec', '-it', ''], ['task']],
  [['exec', '-it', 'web.1', ''], []],
  [['node', 'label', ''], ['node']],
  [['node', 'label', 'h1', ''], []],
  [
    ['net', 'trace', 'web.1', ''],
    ['service', 'task', 'node'],
  ],
  [['ps', '--node', ''], ['node']],
  [['whatif', '--kill', ''], ['node']],
  [['whatif', '--kill=h1', '--scale', ''], ['service']],
  [['apply', '-f', ''], []],
  [['context', 'use', ''], []],
])('%j is a place for names of %j', (words, names) => {
  expect(next(...words)).toEqual({ words: [], kinds: names });
});
