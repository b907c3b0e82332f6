/** Interpolation against the rules of the specification, written down a second time: by cutting the text, not by reading it. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { expand, parseTemplate } from '#control-plane/compose/interpolation.ts';

type Values = Readonly<Record<string, string>>;
class Malformed extends Error {}
class Required extends Error {}

/** Where the brace that opens at `open` is closed. */
function closing(text: string, open: number): number {
  let depth = 0;
  for (let at = open; at < text.length; at++) {
    if (text[at] === '{') depth++;
    if (text[at] === '}' && --depth === 0) return at;
  }
  throw new Malformed();
}

/** The text up to its first variable, how that is written, and the text after it. */
function cut(text: string): {
  before: string;
  name?: string;
  colon?: string;
  operator?: string;
  word: string;
  after: string;
} {
  const at = text.indexOf('$');
  if (at < 0) return { before: text, word: '', after: '' };
  const before = text.slice(0, at);
  const rest = text.slice(at + 1);
  if (rest.startsWith('$')) return { before: `${before}$`, word: '', after: rest.slice(1) };
  if (rest.startsWith('{')) {
    const end = closing(rest, 0);
    const inner = /^([A-Za-z_]\w*)(?:(:?)([-?+])(.*))?$/s.exec(rest.slice(1, end));
    if (!inner) throw new Malformed();
    const [, name = '', colon = '', operator = '', word = ''] = inner;
    return { before, name, colon, operator, word, after: rest.slice(end + 1) };
  }
  const [name] = /^[A-Za-z_]\w*/.exec(rest) ?? [];
  return name === undefined
    ? { before: `${before}$`, word: '', after: rest }
    : { before, name, word: '', after: rest.slice(name.length) };
}

/** Also what is not taken must be well formed. */
function check(text: string): void {
  if (text === '') return;
  const { word, after } = cut(text);
  check(word);
  check(after);
}

function oracle(text: string, values: Values): string {
  if (text === '') return '';
  const { before, name, colon, operator, word, after } = cut(text);
  if (name === undefined) return before + oracle(after, values);
  const value = Object.hasOwn(values, name) ? values[name]! : undefined;
  const there = value !== undefined && !(colon && value === '');
  if (operator === '?' && !there) throw new Required();
  const taken =
    operator === '-'
      ? there
        ? value
        : oracle(word, values)
      : operator === '+'
        ? there
          ? oracle(word, values)
          : ''
        : value;
  return before + (taken ?? '') + oracle(after, values);
}

function outcome(run: () => string): string {
  try {
    return `= ${run()}`;
  } catch (error) {
    if (error instanceof Malformed) return 'malformed';
    if (error instanceof Required) return 'required';
    throw error;
  }
}

function ours(text: string, values: Values): string {
  const pieces = parseTemplate(text);
  if ('message' in pieces) return 'malformed';
  const { text: expanded, failure } = expand(pieces, (name) =>
    Object.hasOwn(values, name) ? values[name] : undefined,
  );
  return failure === undefined ? `= ${expanded}` : 'required';
}

const pieces = ['$', '{', '}', '${A', '${B', '$A', '$$', ':-', '-', ':?', '?', ':+', '+', 'x', '1', ' ', '}', '}'];
const template = fc.array(fc.constantFrom(...pieces), { maxLength: 14 }).map((parts) => parts.join(''));
const values = fc.dictionary(fc.constantFrom('A', 'B'), fc.constantFrom('', 'v', '$A'));

it('says of every text what the rules say', () => {
  const seen = new Set<string>();
  fc.assert(
    fc.property(template, values, (text, values) => {
      const expected = outcome(() => {
        check(text);
        return oracle(text, values);
      });
      seen.add(expected.startsWith('=') ? 'text' : expected);
      expect(ours(text, values)).toBe(expected);
    }),
    { numRuns: 5_000 },
  );
  expect([...seen].sort()).toEqual(['malformed', 'required', 'text']);
});
