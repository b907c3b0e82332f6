/** Interpolation against every template that can be written. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { expand, type Piece, parseTemplate, variablesOf } from '#control-plane/compose/interpolation.ts';

const names = fc.constantFrom('A', 'B', '_c', 'LONG_NAME');
const literal = fc.string().map((text) => text.replace(/[${}]/g, ''));
const operators = fc.constantFrom('', ':-', '-', ':?', '?', ':+', '+') as fc.Arbitrary<
  '' | ':-' | '-' | ':?' | '?' | ':+' | '+'
>;

const { pieces } = fc.letrec<{ pieces: Piece[]; piece: Piece }>((tie) => ({
  piece: fc.oneof(
    { depthSize: 'small' },
    literal,
    fc
      .record({ name: names, operator: operators, argument: tie('pieces') })
      .map((piece) => (piece.operator === '' ? { ...piece, argument: [] } : piece)),
  ),
  pieces: fc.array(tie('piece'), { maxLength: 4 }),
}));

function render(pieces: readonly Piece[]): string {
  return pieces
    .map((piece) => (typeof piece === 'string' ? piece : `\${${piece.name}${piece.operator}${render(piece.argument)}}`))
    .join('');
}

/** Neighbouring literals joined and empty ones dropped, as the parser sees them. */
function tidy(pieces: readonly Piece[]): Piece[] {
  const result: Piece[] = [];
  for (const piece of pieces) {
    const last = result.at(-1);
    if (piece === '') continue;
    if (typeof piece === 'string' && typeof last === 'string') result[result.length - 1] = last + piece;
    else result.push(typeof piece === 'string' ? piece : { ...piece, argument: tidy(piece.argument) });
  }
  return result;
}

describe('interpolation', () => {
  it('reads back every template that can be written', () => {
    fc.assert(
      fc.property(pieces, (wanted) => {
        expect(parseTemplate(render(wanted))).toEqual(tidy(wanted));
      }),
    );
  });

  it('leaves text with doubled dollars as it was meant', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const parsed = parseTemplate(text.replaceAll('$', '$$$$'));
        if ('message' in parsed) throw new Error(parsed.message);
        expect(expand(parsed, () => undefined)).toEqual({ text, unset: [], failure: undefined });
      }),
    );
  });

  it('never throws, whatever the text', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom('$', '{', '}', ':', '-', '?', '+', 'A', '1', ' ') }), (text) => {
        const parsed = parseTemplate(text);
        if (!('message' in parsed)) expand(parsed, () => 'x');
      }),
    );
  });

  it('asks for every variable it looks up', () => {
    fc.assert(
      fc.property(pieces, fc.dictionary(names, fc.string()), (wanted, values) => {
        const asked = new Set<string>();
        expand(wanted, (name) => {
          asked.add(name);
          return values[name];
        });
        const announced = new Set(variablesOf(wanted));
        expect([...asked].every((name) => announced.has(name))).toBe(true);
      }),
    );
  });

  it.each([
    ['${A:-d}', '', 'd'],
    ['${A-d}', '', ''],
    ['${A:+r}', '', ''],
    ['${A+r}', '', 'r'],
    ['${A:-d}', 'v', 'v'],
    ['${A:+r}', 'v', 'r'],
    ['$A-$A', 'v', 'v-v'],
    ['${B:-${A:-d}}', 'v', 'v'],
    ['$$A', 'v', '$A'],
    ['a $5 $ $', 'v', 'a $5 $ $'],
    ['${B:-{{.Name}}}', 'v', '{{.Name}}'],
    ['${B:-{"a": "${A}"}}', 'v', '{"a": "v"}'],
  ])('%s with A=%j is %j', (template, value, expected) => {
    const parsed = parseTemplate(template);
    if ('message' in parsed) throw new Error(parsed.message);
    expect(expand(parsed, (name) => (name === 'A' ? value : undefined)).text).toBe(expected);
  });
});
