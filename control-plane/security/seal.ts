/** Seals what must not lie readable in etcd or in its backups: AES-256-GCM under a key that only lies in DIR/pki. */
import { createCipheriv, createDecipheriv, createHash, createHmac, createSecretKey } from 'node:crypto';
import type { Sealer } from '#control-plane/store/codec.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Random } from '#proto/kernel/random.ts';
import { Concealed } from '#proto/model/concealed.ts';
import { contentKey, type DocumentRef, type SealedContent } from '#proto/model/document.ts';

/** Seals the contents of configs and secrets: nothing in the control plane holds them open. */
export interface ContentSeal {
  /** The version that these bytes are of this document: who has no key learns nothing from it, not even by guessing. */
  version(document: Pick<DocumentRef, 'type' | 'name'>, content: Concealed): string;
  seal(ref: DocumentRef, content: Concealed): SealedContent;
  /** Faults: `corrupt` where it was not sealed as this content with a key we have. */
  open(content: SealedContent): Concealed;
}

const cipher = 'aes-256-gcm';
const nonceBytes = 12;
const tagBytes = 16;
/** Of the hex digits of a version: more than can collide. */
const versionLength = 32;

/** Sealed text: `sealed.1.<key's mark>.<base64url of nonce, tag and ciphertext>`. The first key seals, all of them open. */
export function sealer(keys: readonly Buffer[], random: Random): Sealer {
  const box = sealedBox(keys, random);
  return { seal: (text) => box.seal(Buffer.from(text)), open: (sealed) => box.open(sealed).toString() };
}

/** By the same keys. What is sealed as one content does not open as another. */
export function contentSeal(keys: readonly Buffer[], random: Random): ContentSeal {
  const box = sealedBox(keys, random);
  const [current] = keys;
  const versionKey = createHmac('sha256', current!).update('gantry document versions').digest();
  return {
    version: ({ type, name }, content) =>
      createHmac('sha256', versionKey)
        .update(`${type}/${name}\0`)
        .update(content.reveal())
        .digest('hex')
        .slice(0, versionLength),
    seal: ({ type, name, version }, content) => {
      const ref = { type, name, version };
      return { ...ref, sealed: box.seal(content.reveal(), contentKey(ref)) };
    },
    open: (content) => new Concealed(box.open(content.sealed, contentKey(content))),
  };
}

/** `bound`: what the text is sealed as; it opens as nothing else. */
function sealedBox(keys: readonly Buffer[], random: Random) {
  const byMark = new Map(keys.map((key) => [markOf(key), createSecretKey(key)]));
  const [current] = byMark;
  if (!current) throw new Error('a sealer needs a key');
  const [mark, key] = current;
  return {
    seal(bytes: Uint8Array, bound = ''): string {
      const nonce = random.bytes(nonceBytes);
      const encrypt = createCipheriv(cipher, key, nonce).setAAD(Buffer.from(bound));
      const body = Buffer.concat([encrypt.update(bytes), encrypt.final()]);
      return `sealed.1.${mark}.${Buffer.concat([nonce, encrypt.getAuthTag(), body]).toString('base64url')}`;
    },
    open(sealed: string, bound = ''): Buffer {
      const [, version, name, body] = sealed.split('.');
      const sealedWith = version === '1' && name !== undefined ? byMark.get(name) : undefined;
      if (!sealedWith || body === undefined)
        throw new Fault('corrupt', 'a secret in the store was sealed with a key that is not here', {
          remedy: 'copy pki/seal.key from the replica that wrote it',
        });
      const bytes = Buffer.from(body, 'base64url');
      try {
        const decrypt = createDecipheriv(cipher, sealedWith, bytes.subarray(0, nonceBytes)).setAAD(Buffer.from(bound));
        decrypt.setAuthTag(bytes.subarray(nonceBytes, nonceBytes + tagBytes));
        return Buffer.concat([decrypt.update(bytes.subarray(nonceBytes + tagBytes)), decrypt.final()]);
      } catch (error) {
        throw new Fault('corrupt', 'a secret in the store was altered', { cause: error, remedy: 'set it again' });
      }
    },
  };
}

/** Tells keys apart without giving anything of them away. */
function markOf(key: Buffer): string {
  return createHash('sha256').update('gantry seal').update(key).digest('hex').slice(0, 8);
}
