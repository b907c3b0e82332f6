/** Secrets at rest: open for who has the key, noise for everybody else. */
import { randomBytes } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { contentSeal, sealer } from '#control-plane/security/seal.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { Concealed } from '#proto/model/concealed.ts';

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

describe('a sealed content of a config or secret', () => {
  const text = new Concealed(Buffer.from([0, 255, 10, 13]));
  const seal = contentSeal([key], systemRandom);
  const refOf = (name: string, content = text) => {
    const document = { type: 'secret', name } as const;
    return { ...document, version: seal.version(document, content) };
  };

  test('opens as what it was sealed as, and as nothing else', () => {
    const sealed = seal.seal(refOf('db'), text);
    expect(seal.open(sealed).reveal()).toEqual(Buffer.from(text.reveal()));
    expect(() => seal.open({ ...sealed, ...refOf('other') })).toThrow(faultOf('corrupt'));
    expect(() => seal.open({ ...sealed, type: 'config' })).toThrow(faultOf('corrupt'));
  });

  test('has a version that follows from it, its name and the key', () => {
    expect(refOf('db')).toEqual(refOf('db'));
    const versions = [
      refOf('db').version,
      refOf('other').version,
      refOf('db', new Concealed(Buffer.from('1234'))).version,
      seal.version({ type: 'config', name: 'db' }, text),
      contentSeal([other], systemRandom).version({ type: 'secret', name: 'db' }, text),
    ];
    expect(new Set(versions).size).toBe(versions.length);
  });
});
