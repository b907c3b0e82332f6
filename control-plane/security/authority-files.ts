/** The CA as this replica's files have it, and as the store says it should be. */
import { certificateHash, certificatesIn } from '#proto/certificates.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type AuthorityState, type Root, trustOf } from '#proto/model/authority.ts';
import { createAuthority, crossSign, type KeyPair } from './certificates.ts';
import type { LiveIdentity } from './live-identity.ts';
import { adoptAuthority, identityFiles, initPki, type PkiParts } from './pki.ts';

export function rootsIn(trust: string): Root[] {
  return certificatesIn(trust).map((certificate) => ({ certificate, hash: certificateHash(certificate) }));
}

/** What the files have: for the first replica of a cluster to write down. */
export async function authorityOf(
  dataDir: string,
  identity: LiveIdentity,
): Promise<Pick<AuthorityState, 'roots' | 'key' | 'cross'>> {
  const files = await identityFiles(dataDir);
  return { roots: rootsIn(identity.authority.trust), key: files['ca.key'] ?? '', cross: files['cross.pem'] ?? '' };
}

/** A root to come after `by`. Faults: `unsupported`. */
export async function rootAfter(
  by: KeyPair,
  random: Random,
): Promise<{ readonly root: Root; readonly key: string; readonly cross: string }> {
  const name = `gantry-ca-${Buffer.from(random.bytes(4)).toString('hex')}`;
  const { certificate, key } = await createAuthority(name, systemClock.now(), random);
  const cross = await crossSign(certificate, by, random);
  return { root: { certificate, hash: certificateHash(certificate) }, key, cross };
}

/**
 * Has the files say what the store says, certificates issued by it where they are not, or age, and the doors show them.
 * `changed` is called where anything is new: others read the files.
 */
export async function refresh(
  parts: PkiParts,
  identity: LiveIdentity,
  state: AuthorityState | undefined,
  changed: () => Promise<void>,
): Promise<{ readonly issuer: string; readonly trusts: readonly string[] }> {
  const adopted =
    state !== undefined &&
    (await adoptAuthority(parts.dataDir, { trust: trustOf(state), cross: state.cross, key: state.key }));
  const renewed = identity.replace(await initPki(parts));
  if (adopted || renewed) await changed();
  const { hash, trust } = identity.authority;
  return { issuer: hash, trusts: rootsIn(trust).map((root) => root.hash) };
}
