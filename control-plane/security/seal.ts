/** Seals what must not lie readable in etcd or in its backups: AES-256-GCM under a key that only lies in DIR/pki. */
import { createCipheriv, createDecipheriv, createHash } from 'node:crypto';
import type { Sealer } from '#control-plane/store/codec.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Random } from '#proto/kernel/random.ts';

const cipher = 'aes-256-gcm';
const nonceBytes = 12;
const tagBytes = 16;

/** Sealed text: `sealed.1.<key's mark>.<base64url of nonce, tag and ciphertext>`. The first key seals, all of them open. */
export function sealer(keys: readonly Buffer[], random: Random): Sealer {
  const byMark = new Map(keys.map((key) => [markOf(key), key]));
  const [current] = byMark;
  if (!current) throw new Error('a sealer needs a key');
  const [mark, key] = current;
  return {
    seal(text) {
      const nonce = random.bytes(nonceBytes);
      const encrypt = createCipheriv(cipher, key, nonce);
      const body = Buffer.concat([encrypt.update(text, 'utf8'), encrypt.final()]);
      return `sealed.1.${mark}.${Buffer.concat([nonce, encrypt.getAuthTag(), body]).toString('base64url')}`;
    },
    open(sealed) {
      const [, version, name, body] = sealed.split('.');
      const sealedWith = version === '1' && name !== undefined ? byMark.get(name) : undefined;
      if (!sealedWith || body === undefined)
        throw new Fault('corrupt', 'a secret in the store was sealed with a key that is not here', {
          remedy: 'copy pki/seal.key from the replica that wrote it',
        });
      const bytes = Buffer.from(body, 'base64url');
      try {
        const decrypt = createDecipheriv(cipher, sealedWith, bytes.subarray(0, nonceBytes));
        decrypt.setAuthTag(bytes.subarray(nonceBytes, nonceBytes + tagBytes));
        return Buffer.concat([decrypt.update(bytes.subarray(nonceBytes + tagBytes)), decrypt.final()]).toString('utf8');
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
