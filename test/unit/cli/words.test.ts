/** What people read of others' words: a table stays a table, whatever a reason is made of. */
import { expect, it } from 'vitest';
import { oneLine, table, width } from '#control-plane/cli/words.ts';

const page = `unhealthy: 404: <!DOCTYPE HTML>\r\n<html lang="en">\n\t<body>\n${'<p>Nothing matches the given URI.</p>\n'.repeat(9)}`;

it('a cell is one line, and of a whole page the beginning', () => {
  const [, first, second] = table(
    ['TASK', 'REASON', 'NODE'],
    [
      ['web.1', page, 'h1'],
      ['web.2', '', 'h2'],
    ],
  ).split('\n');
  expect(first).toMatch(/^web\.1 {3}unhealthy: 404: <!DOCTYPE HTML> <html lang="en"> <body> <p>Nothing .*… {3}h1$/);
  expect(width(first!)).toBe(width(second!));
});

it('what was written as one line stays whole, with its colours and the space before it', () => {
  for (const text of ['', '  h1', `\x1b[31m✗ ${'long '.repeat(99)}\x1b[39m`]) expect(oneLine(text)).toBe(text);
});

it('a terminal is told nothing by others, and colours end where the line is cut', () => {
  expect(oneLine('a\x1b]0;title\x07b\x1b[2Kc\x00\u2028d')).toBe('a ]0;title b [2Kc d');
  const cut = oneLine(`\x1b[31m${page}\x1b[39m`);
  expect(cut.startsWith('\x1b[31munhealthy')).toBe(true);
  expect(cut.endsWith('…\x1b[39m')).toBe(true);
  expect(width(cut)).toBeLessThanOrEqual(120);
});
