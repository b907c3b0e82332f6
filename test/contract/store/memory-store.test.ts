/** The store in memory keeps the promises of a store, and breaks where it is told to. */
import { describe, expect, test } from 'vitest';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { aTask } from './records.ts';
import { put, storeContract } from './store-contract.ts';

storeContract('memory', async () => {
  const etcd = new MemoryEtcd({ clock: systemClock });
  return {
    open: async () => etcd.open(),
    async compactWhileAway(store, meanwhile) {
      (store as MemoryStore).setConnected(false);
      await meanwhile();
      etcd.compact();
      (store as MemoryStore).setConnected(true);
    },
    async close() {},
  };
});

describe('the store in memory', () => {
  test('fails a commit as told, having applied it or not', async () => {
    const etcd = new MemoryEtcd({ clock: systemClock });
    const store = etcd.open();
    const [lost, kept] = [aTask(), aTask()];
    const fault = new Fault('timeout', 'no answer');
    store.failNext({ fault, applied: false }, { fault, applied: true });
    await expect(store.commit([put(lost, 0)])).rejects.toBe(fault);
    await expect(store.commit([put(kept, 0)])).rejects.toBe(fault);
    expect(etcd.get('task', lost.id)).toBeUndefined();
    expect(etcd.get('task', kept.id)?.value).toEqual(kept);
  });

  test('hears nothing and writes nothing while it is cut off, and catches up', async () => {
    const etcd = new MemoryEtcd({ clock: systemClock });
    const [store, other] = [etcd.open(), etcd.open()];
    store.setConnected(false);
    const task = aTask();
    await other.seen(await other.commit([put(task, 0)]));
    expect(store.snapshot.task(task.id)).toBeUndefined();
    await expect(store.commit([put(aTask(), 0)])).rejects.toThrow('not reachable');
    store.setConnected(true);
    await store.seen(other.snapshot.revision);
    expect(store.snapshot.task(task.id)).toEqual(task);
  });
});
