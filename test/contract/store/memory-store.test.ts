/** The store in memory keeps the promises of a store, and breaks where it is told to. */
import { describe, expect, test } from 'vitest';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Store } from '#control-plane/store/store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Task } from '#proto/model/task.ts';
import { ViewedStore } from '#test/sim/viewed-store.ts';
import { aTask } from './records.ts';
import { put, storeContract } from './store-contract.ts';

/** As it is, and as the simulator's replicas hold it. */
for (const viewed of [false, true])
  storeContract(viewed ? 'memory, through a view' : 'memory', async () => {
    const etcd = new MemoryEtcd({ clock: systemClock });
    const inner = new Map<Store, MemoryStore>();
    return {
      async open() {
        const store = etcd.open();
        const held = viewed ? new ViewedStore({ inner: store }) : store;
        inner.set(held, store);
        return held;
      },
      async compactWhileAway(store, meanwhile) {
        inner.get(store)!.setConnected(false);
        await meanwhile();
        etcd.compact();
        inner.get(store)!.setConnected(true);
      },
      async close() {},
    };
  });

describe('a view of a store', () => {
  const setUp = () => {
    const etcd = new MemoryEtcd({ clock: systemClock });
    const [inner, other] = [etcd.open(), etcd.open()];
    const view = new ViewedStore({ inner });
    const told: (number | undefined)[] = [];
    view.subscribe(({ changes }) => told.push(...changes.map(({ after }) => (after as Task | undefined)?.slot)));
    const task = aTask({ slot: 1 });
    const write = async (slot: number) => {
      const record = other.snapshot.get('task', task.id);
      await inner.seen(await other.commit([put({ ...task, slot }, record?.modRevision ?? 0)]));
      await other.seen(inner.snapshot.revision);
    };
    return { inner, view, told, task, write };
  };

  test('is stale until it is cleared, then shows each step', async () => {
    const { view, told, task, write } = setUp();
    view.obscure(false);
    await write(1);
    await write(2);
    expect(view.snapshot.task(task.id)).toBeUndefined();
    view.clear();
    expect(told).toEqual([1, 2]);
  });

  test('shows only what has become of it where it was blind', async () => {
    const { view, told, task, write } = setUp();
    await write(1);
    view.obscure(true);
    await write(2);
    await write(3);
    view.clear();
    expect(told).toEqual([1, 3]);
    expect(view.snapshot.task(task.id)?.slot).toBe(3);
  });

  test('ends between two writes', async () => {
    const { inner, view, task } = setUp();
    let ended = 0;
    const end = () => {
      ended++;
    };
    view.doom = { commits: 1, when: 'after', end };
    const first = await view.commit([put(task, 0)]);
    expect(ended).toBe(0);
    await view.commit([put({ ...task, slot: 2 }, first)]);
    expect(ended).toBe(1);
    view.doom = { commits: 0, when: 'before', end };
    void view.commit([put(aTask(), 0)]);
    expect(ended).toBe(2);
    expect(inner.snapshot.count('task')).toBe(1);
  });
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
