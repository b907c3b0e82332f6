/** What is run, and where, follows Docker. */
import { describe, expect, it } from 'vitest';
import { processArgs, workingDirectory } from '#node-agent/runtime/process-args.ts';

const image = { entrypoint: ['/entry'], command: ['default'] };
const args = (entrypoint: string[], command: string[], of: { entrypoint: string[]; command: string[] } = image) =>
  processArgs({ entrypoint, command, image: 'web' }, of);

describe('processArgs', () => {
  it.each([
    ['the image’s own words', [], [], ['/entry', 'default']],
    ['a command in place of the image’s', [], ['mine'], ['/entry', 'mine']],
    ['an entrypoint, which drops the image’s command', ['/mine'], [], ['/mine']],
    ['both', ['/mine'], ['arg'], ['/mine', 'arg']],
    ['a command without any entrypoint', [''], ['arg'], ['arg']],
  ])('runs %s', (_, entrypoint, command, expected) => {
    expect(args(entrypoint, command)).toEqual(expected);
  });

  it('says that nothing is left to run', () => {
    expect(() => args([''], [])).toThrow(/nothing to run/);
    expect(() => args([], [], { entrypoint: [], command: [] })).toThrow(/nothing to run/);
  });
});

describe('workingDirectory', () => {
  it('is the service’s, else the image’s, else the root', () => {
    expect(workingDirectory('/a//b/../c/', '/img')).toBe('/a/c');
    expect(workingDirectory('', '/img')).toBe('/img');
    expect(workingDirectory('', '')).toBe('/');
  });

  it.each(['/proc', '/proc/self/fd/8', '//proc/1/cwd', '/x/../proc/self/fd/7', 'relative'])('refuses %s', (path) => {
    expect(() => workingDirectory(path, '')).toThrow(/working directory/);
    expect(() => workingDirectory('', path)).toThrow(/working directory/);
  });
});
