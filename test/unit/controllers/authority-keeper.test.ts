/** A replica's part in a change of the CA. */
import { afterEach, expect, it } from 'vitest';
import { AuthorityKeeper } from '#control-plane/controllers/authority-keeper.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import type { Store } from '#control-plane/store/store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import type { AuthorityState, ReplicaTrust } from '#proto/model/authority.ts';
import { eventually } from '#test/support/eventually.ts';

const keepers: AuthorityKeeper[] = [];
afterEach(() => {
  for (const one of keepers.splice(0)) one.close();
});

const trust = (hash: string): ReplicaTrust => ({ issuer: 'new', trusts: ['new'], etcd: [hash] });
const dropping: AuthorityState = {
  phase: 'dropping',
  roots: [{ certificate: 'PEM', hash: 'new' }],
  key: 'key',
  cross: '',
  rotatedAtMs: 1,
  replicas: { m1: trust('old'), m2: trust('old') },
  operators: {},
};

async function put(store: Store, value: AuthorityState): Promise<void> {
  const expect = store.snapshot.get('authority', 'ca')?.modRevision ?? 0;
  await store.seen(await store.commit([{ table: 'authority', key: 'ca', value, expect }]));
}

function keeperOf(store: Store, replica: string, restartEtcd: () => Promise<void>): void {
  const adopt = async () => ({ issuer: 'new', trusts: ['new'] });
  const own = async () => dropping;
  const parts = { store, clock: systemClock, log: silentLog, replica, epoch: () => 1, own, adopt, restartEtcd };
  keepers.push(new AuthorityKeeper(parts));
}

it('starts its etcd again once, though others write the record meanwhile', async () => {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  await put(store, dropping);
  let starts = 0;
  keeperOf(store, 'm1', async () => {
    starts++;
    const state = store.snapshot.authority!;
    await put(store, { ...state, operators: { [`o${starts}`]: { issuer: 'new', expiresAtMs: 0 } } });
  });
  await eventually(() => store.snapshot.authority!.replicas.m1!.etcd!.includes('new'));
  expect(starts).toBe(1);
});

it('that is closed while it writes leaves no rejection behind', async () => {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  await put(store, dropping);
  let begun = false;
  let fail: (error: Error) => void = () => {};
  keeperOf(store, 'm1', () => {
    begun = true;
    return new Promise((_, reject) => {
      fail = reject;
    });
  });
  await eventually(() => begun);
  keepers.pop()!.close();
  // Vitest fails a run with a rejection that nobody handles.
  fail(new Error('ENOENT: no such file or directory'));
  await new Promise((resolve) => setImmediate(resolve));
});

it('waits for the etcds of those before it', async () => {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  await put(store, dropping);
  const order: string[] = [];
  keeperOf(store, 'm2', async () => void order.push('m2'));
  keeperOf(store, 'm1', async () => void order.push('m1'));
  await eventually(() => store.snapshot.authority!.replicas.m2!.etcd!.includes('new'));
  expect(order).toEqual(['m1', 'm2']);
});
