/** An etcd whose quota is used up reads and refuses to write, until it is given room. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { noSealer } from '#control-plane/store/codec.ts';
import { openEtcdStore } from '#control-plane/store/etcd-store.ts';
import type { Store } from '#control-plane/store/store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { startEtcd, type TestEtcd } from '#test/support/etcd.ts';
import { aTask } from './records.ts';
import { put } from './store-contract.ts';

let etcd: TestEtcd;
let store: Store;
beforeAll(async () => {
  etcd = await startEtcd({ flags: [`--quota-backend-bytes=${16 * 1024 * 1024}`] });
  const address = { hosts: [etcd.url], callTimeoutMs: 3_000 };
  const kernel = { clock: systemClock, random: systemRandom, log: silentLog };
  store = await openEtcdStore({ address, ...kernel, sealer: noSealer, resolveMs: 6_000 });
});
afterAll(async () => {
  await store?.close();
  await etcd?.close();
});

const etcdctl = (...args: string[]) =>
  promisify(execFile)('etcdctl', ['--endpoints', etcd.url, ...args], { env: { ...process.env, ETCDCTL_API: '3' } });

test('F8: with its quota used up a commit says what to do, reading goes on, and with room again all goes on', async () => {
  const task = aTask({ message: '' });
  let revision = await store.commit([put(task, 0)]);
  await store.seen(revision);
  const refused = async () => {
    for (let round = 0; round < 60; round++) {
      // The same record again and again: all but the last is history.
      revision = await store.commit([put({ ...task, message: `${round} ${'x'.repeat(1024 * 1024)}` }, revision)]);
    }
  };
  const fault = await refused().then(
    () => undefined,
    (error: unknown) => error,
  );
  expect(isFault(fault, 'exhausted')).toBe(true);
  expect(fault).toMatchObject({ remedy: expect.stringContaining('compact and defragment') });
  await store.seen(revision);
  expect(store.snapshot.task(task.id)?.message.length).toBeGreaterThan(1024 * 1024);
  await etcd.compact();
  await etcdctl('defrag');
  await etcdctl('alarm', 'disarm');
  revision = await store.commit([put({ ...task, message: 'again' }, revision)]);
  await store.seen(revision);
  expect(store.snapshot.task(task.id)?.message).toBe('again');
});
