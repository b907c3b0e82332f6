/** Files of variables, as Compose reads them. */
import { describe, expect, it } from 'vitest';
import type { Findings } from '#control-plane/compose/diagnostic.ts';
import { evaluateDotenv, parseDotenv } from '#control-plane/compose/dotenv.ts';

function read(text: string, format: '' | 'raw' = '', client: Readonly<Record<string, string>> = {}) {
  const findings: Findings = { errors: [], warnings: [] };
  const entries = parseDotenv('x.env', text, format, findings);
  const values = Object.fromEntries(evaluateDotenv(entries, (name) => client[name], findings));
  return { values, errors: findings.errors.map(({ line, message }) => `${line}: ${message}`) };
}

describe('a line', () => {
  it.each([
    ['A=b', 'b'],
    ['A="b"', 'b'],
    ["A='b'", 'b'],
    ['A = b', 'b'],
    ['  export A=b', 'b'],
    ['A: b', 'b'],
    ['A=', ''],
    ['A=b # comment', 'b'],
    ['A=b# none', 'b# none'],
    ['A=#b', ''],
    ['A="b # none"', 'b # none'],
    ['A="b" # comment', 'b'],
    ["A='$OTHER ${OTHER}'", '$OTHER ${OTHER}'],
    ["A='Let\\'s go!'", "Let's go!"],
    ['A="{\\"hello\\": \\"json\\"}"', '{"hello": "json"}'],
    ['A="some\\tvalue\\n"', 'some\tvalue\n'],
    ["A='some\\tvalue'", 'some\\tvalue'],
    ['A=some\\tvalue', 'some\\tvalue'],
    ['A="\\$X and $$X"', '$X and $X'],
    ['A=${X:-default} $X', 'client client'],
    ['A="${NONE:-a b}"', 'a b'],
    ['A="first\nsecond"', 'first\nsecond'],
    ["A='first\nsecond'", 'first\nsecond'],
    ['\uFEFFA=b\r', 'b'],
    ['B=1\nA=$B${B}', '11'],
    ['A=1\nA=2', '2'],
  ])('%j makes A %j', (text, value) => {
    const { values, errors } = read(text, '', { X: 'client' });
    expect([values.A, errors]).toEqual([value, []]);
  });

  it('of a name alone takes what the client has, or nothing', () => {
    expect(read('A\nB', '', { A: '1' }).values).toEqual({ A: '1' });
  });

  it('is taken as it stands from a raw file', () => {
    expect(read('A="b" $X # all\nB=\'c\'', 'raw').values).toEqual({ A: '"b" $X # all', B: "'c'" });
  });

  it.each([
    ['A B', '1: this line is not NAME=VALUE'],
    ['\nA="b', '2: the value of A has no closing "'],
    ['A="b" c', '1: something follows the value of A'],
    ['A=${', '1: "${" must be followed by a variable name'],
    ['A=${B:?why}', '1: required variable B is not set: why'],
  ])('%j is refused', (text, error) => {
    expect(read(text).errors).toEqual([error]);
  });
});
