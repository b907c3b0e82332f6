/** A rotation of the CA goes on when all have done their part, and says for whom it waits. */
import { describe, expect, test } from 'vitest';
import { membersOf, nextAuthority, withNewRoot } from '#control-plane/reconcilers/authority.ts';
import type { AuthorityState } from '#proto/model/authority.ts';
import type { Node } from '#proto/model/node.ts';
import { aNode } from '#test/support/builders.ts';

const root = (hash: string) => ({ certificate: `PEM ${hash}`, hash });
const settled: AuthorityState = {
  phase: 'settled',
  roots: [root('old')],
  key: 'old key',
  cross: '',
  rotatedAtMs: 0,
  replicas: { m1: { issuer: 'old', trusts: ['old'], etcd: ['old'] }, m2: { issuer: 'old', trusts: ['old'] } },
  operators: { bob: { issuer: 'old', expiresAtMs: 100 } },
};
const nodes: Node[] = [
  aNode('h1', { authority: 'old' }),
  aNode('h2', { authority: 'old', state: 'down', message: 'not heard' }),
];
const renewing = withNewRoot(settled, { root: root('new'), key: 'new key', cross: 'PEM cross' }, 50);
const renewed: AuthorityState = {
  ...renewing,
  replicas: {
    m1: { issuer: 'new', trusts: ['new', 'old'], etcd: ['old'] },
    m2: { issuer: 'new', trusts: ['new', 'old'] },
  },
  operators: { bob: { issuer: 'new', expiresAtMs: 900 } },
};
const renewedNodes: Node[] = nodes.map((node) => ({ ...node, authority: 'new' }));
const next = (authority: AuthorityState, of = renewedNodes, now = 60, finish = false) =>
  nextAuthority({ authority, all: () => of as never }, now, finish);
const waiting = (state: AuthorityState, of = nodes, now = 60) =>
  membersOf(state, of, now)
    .filter(({ done }) => !done)
    .map(({ kind, name }) => `${kind} ${name}`);

describe('a rotation', () => {
  test('does not begin by itself', () => {
    expect(next(settled)).toBeUndefined();
    expect(waiting(settled)).toEqual([]);
  });

  test('has the new root issue, and all of before trusted beside it', () => {
    expect(renewing).toMatchObject({ phase: 'renewing', key: 'new key', cross: 'PEM cross', rotatedAtMs: 50 });
    expect(renewing.roots.map(({ hash }) => hash)).toEqual(['new', 'old']);
  });

  test('waits for managers, nodes that are down too, and operators', () => {
    expect(waiting(renewing)).toEqual(['manager m1', 'manager m2', 'node h1', 'node h2', 'operator bob']);
    expect(membersOf(renewing, nodes, 60).find(({ name }) => name === 'h2')?.message).toContain('is down (not heard)');
    expect(next(renewing, nodes)).toBeUndefined();
    expect(next(renewed, [renewedNodes[0]!, nodes[1]!])).toBeUndefined();
    expect(next({ ...renewed, operators: settled.operators })).toBeUndefined();
  });

  test('does not wait for an operator whose certificate has ended', () => {
    expect(next({ ...renewed, operators: settled.operators }, renewedNodes, 100)?.phase).toBe('dropping');
  });

  test('trusts only the new root once all have certificates of it, or nobody is to be waited for', () => {
    expect(next(renewed)).toMatchObject({ phase: 'dropping', roots: [root('new')] });
    expect(next(renewing, nodes, 60, true)).toMatchObject({ phase: 'dropping', roots: [root('new')] });
  });

  test('is over when every manager, and every etcd that a manager starts, trusts only that', () => {
    const dropping = next(renewed)!;
    expect(waiting(dropping, renewedNodes)).toEqual(['manager m1', 'manager m2']);
    const dropped = (etcd: readonly string[]): AuthorityState => ({
      ...dropping,
      replicas: { m1: { issuer: 'new', trusts: ['new'], etcd }, m2: { issuer: 'new', trusts: ['new'] } },
    });
    expect(next(dropped(['old']))).toBeUndefined();
    expect(next(dropped(['new']))?.phase).toBe('settled');
    const byHand = membersOf(dropped(['new']), renewedNodes, 60).find(({ name }) => name === 'm2');
    expect(byHand).toMatchObject({ done: true, message: expect.stringContaining('by hand') });
    // A node that was not waited for cannot hold up the end.
    expect(next(dropped(['new']), nodes)?.phase).toBe('settled');
  });
});
