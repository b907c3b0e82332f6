/** The CA, and its rotation. */
import { X509Certificate } from 'node:crypto';
import { endOf } from '#control-plane/controllers/authority-keeper.ts';
import { membersOf, nextAuthority, withNewRoot } from '#control-plane/reconcilers/authority.ts';
import type { AuthorityStatus, RotateAuthorityRequest } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { AuthorityState } from '#proto/model/authority.ts';
import { commitWish, type OperatorParts } from './parts.ts';

/** Faults: `unavailable` before the first replica has written it down. */
export function authority({ store, clock }: OperatorParts): AuthorityStatus {
  const state = known(store.snapshot.authority);
  const [newest] = state.roots;
  return {
    phase: state.phase,
    roots: state.roots.map(({ hash }) => hash),
    rotatedAtMs: state.rotatedAtMs,
    expiresAtMs: newest ? Date.parse(new X509Certificate(newest.certificate).validTo) : 0,
    members: membersOf(state, store.snapshot.all('node'), clock.now()),
  };
}

/** Faults: `precondition` where a rotation is under way, or, to finish one, is not; `unsupported`; those of a commit. */
export async function rotateAuthority(
  parts: OperatorParts,
  { finish }: RotateAuthorityRequest,
): Promise<AuthorityStatus> {
  const { store, newRoot } = parts;
  const { phase, roots, key } = known(store.snapshot.authority);
  if (finish && phase === 'settled')
    throw new Fault('precondition', 'no rotation of the CA is under way', { remedy: 'begin one: gantry ca rotate' });
  if (!finish && phase !== 'settled')
    throw new Fault('precondition', 'a rotation of the CA is under way already', {
      remedy: 'see gantry ca status; --finish waits no longer for who has no new certificate yet',
    });
  const made = finish ? undefined : await newRoot({ certificate: roots[0]!.certificate, key });
  await commitWish(parts, ({ snapshot, now }) => {
    const held = snapshot.get('authority', 'ca')!;
    // Who was faster has done it.
    if (held.value.phase !== phase) return [];
    const next = made ? withNewRoot(held.value, made, now) : nextAuthority(snapshot, now, true);
    if (!next) return [];
    const change = { table: 'authority', key: 'ca', value: next, expect: held.modRevision } as const;
    return [change, ...endOf(held.value, next, store)];
  });
  return authority(parts);
}

function known(state: AuthorityState | undefined): AuthorityState {
  if (state) return state;
  throw new Fault('unavailable', 'the CA is not written down yet: the control plane has just begun', {
    remedy: 'try again in a moment',
  });
}
