/** How far a rotation of the CA has come, and what it waits for. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { AuthorityState, Root } from '#proto/model/authority.ts';
import type { Node } from '#proto/model/node.ts';

export interface Member {
  readonly kind: 'manager' | 'node' | 'operator';
  readonly name: string;
  /** Nothing is left to do for it. */
  readonly done: boolean;
  /** What is waited for, or what somebody is to do. */
  readonly message: string;
}

/** All whose certificates are of this cluster, and how they stand; `now`: wall clock ms. */
export function membersOf(state: AuthorityState, nodes: Iterable<Node>, now: number): Member[] {
  const newest = state.roots[0]?.hash ?? '';
  const members: Member[] = [];
  for (const [name, { issuer, trusts, etcd }] of Object.entries(state.replicas)) {
    const waits =
      issuer !== newest
        ? 'has no certificates of the new CA yet: its control plane takes them when it runs'
        : state.phase === 'dropping' && !isOnly(trusts, newest)
          ? 'trusts the old CA until its control plane runs'
          : state.phase === 'dropping' && etcd && !isOnly(etcd, newest)
            ? 'its etcd is about to be started again'
            : '';
    const byHand = state.phase !== 'renewing' && state.rotatedAtMs > 0 && !etcd;
    const message =
      waits || (byHand ? 'its etcd trusts the old CA until it is started again by hand (see --etcd-restart)' : '');
    members.push({ kind: 'manager', name, done: waits === '', message });
  }
  for (const node of nodes) {
    const done = node.authority === newest;
    members.push({ kind: 'node', name: node.name, done, message: done ? '' : nodeWaits(node) });
  }
  for (const [name, { issuer, expiresAtMs }] of Object.entries(state.operators)) {
    const done = issuer === newest || expiresAtMs <= now;
    const message = done ? '' : 'gets its certificate with the next command it gives';
    members.push({ kind: 'operator', name, done, message });
  }
  return members.sort((a, b) => (a.kind === b.kind ? (a.name < b.name ? -1 : 1) : 0));
}

function nodeWaits({ state, message }: Node): string {
  if (state === 'ready') return 'is told, and renews its certificate';
  return `is ${state}${message === '' ? '' : ` (${message})`}: it renews its certificate when it is back`;
}

/** The state that follows from what members have done; undefined: it stays. `finish`: who has not renewed is not waited for. */
export function nextAuthority(
  snapshot: Pick<Snapshot, 'authority' | 'all'>,
  now: number,
  finish = false,
): AuthorityState | undefined {
  const state = snapshot.authority;
  if (!state || state.phase === 'settled') return undefined;
  const members = membersOf(state, snapshot.all('node'), now);
  const waited = state.phase === 'dropping' ? members.filter(({ kind }) => kind === 'manager') : members;
  if (!finish && waited.some(({ done }) => !done)) return undefined;
  const [newest] = state.roots;
  if (state.phase === 'dropping') return { ...state, phase: 'settled' };
  return { ...state, phase: 'dropping', roots: newest ? [newest] : [] };
}

/** The same with a new root: everybody is to have certificates of it, and trusts those of before until all have. */
export function withNewRoot(
  state: AuthorityState,
  made: { readonly root: Root; readonly key: string; readonly cross: string },
  now: number,
): AuthorityState {
  const { root, key, cross } = made;
  return { ...state, phase: 'renewing', roots: [root, ...state.roots], key, cross, rotatedAtMs: now };
}

function isOnly(hashes: readonly string[], hash: string): boolean {
  return hashes.length === 1 && hashes[0] === hash;
}
