/** Secrets at rest: open for who has the key, noise for everybody else. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { sealer } from '#control-plane/security/seal.ts';
import { systemRandom } from '#proto/kernel/random.ts';

const faultOf = (code: string) => expect.objectContaining({ name: 'Fault', code });
const [key, other] = [randomBytes(32), randomBytes(32)];

describe('a sealed secret', () => {
  test('opens with its key, and looks different each time', () => {
    const { seal, open } = sealer([key], systemRandom);
    for (const text of ['', 'hush', 'ü'.repeat(5_000)]) {
      expect(open(seal(text))).toBe(text);
      expect(seal(text)).not.toBe(seal(text));
    }
    expect(seal('hush')).not.toContain(Buffer.from('hush').toString('base64url'));
  });

  test('does not open with another key, nor altered', () => {
    const { seal } = sealer([key], systemRandom);
    const sealed = seal('hush');
    expect(() => sealer([other], systemRandom).open(sealed)).toThrow(faultOf('corrupt'));
    const altered = sealed.slice(0, -4) + (sealed.endsWith('AAAA') ? 'BBBB' : 'AAAA');
    expect(() => sealer([key], systemRandom).open(altered)).toThrow(faultOf('corrupt'));
    expect(() => sealer([key], systemRandom).open('hush')).toThrow(faultOf('corrupt'));
  });

  test('opens after a new key was put before its own', () => {
    const sealed = sealer([key], systemRandom).seal('hush');
    expect(sealer([other, key], systemRandom).open(sealed)).toBe('hush');
  });
});
