/** What every store promises, as tests: run against the one in memory and the one on etcd. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { Change, Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { taskId } from '#proto/model/ids.ts';
import { eventually } from '#test/support/eventually.ts';
import { aService, aTask } from './records.ts';

/** One cluster's memory, into which several stores may look. */
export interface StoreHarness {
  open(): Promise<Store>;
  /** Forgets history while `store` does not watch; when this resolves it watches again. */
  compactWhileAway(store: Store, meanwhile: () => Promise<void>): Promise<void>;
  close(): Promise<void>;
}

const faultOf = (code: string) => expect.objectContaining({ name: 'Fault', code });

export function put(task: ReturnType<typeof aTask>, expected: number): Change {
  return { table: 'task', key: task.id, value: task, expect: expected };
}

export function storeContract(name: string, setUp: () => Promise<StoreHarness>): void {
  describe(`the store (${name})`, () => {
    let harness: StoreHarness;
    let store: Store;
    const commit = async (...changes: Change[]) => {
      const revision = await store.commit(changes);
      await store.seen(revision);
      return revision;
    };

    beforeEach(async () => {
      harness = await setUp();
      store = await harness.open();
    });
    afterEach(async () => {
      await store?.close();
      await harness?.close();
    });

    test('a commit is in the snapshot once its revision is seen, with the revision that wrote it', async () => {
      const task = aTask();
      const revision = await commit(put(task, 0));
      expect(store.snapshot.revision).toBeGreaterThanOrEqual(revision);
      expect(store.snapshot.get('task', task.id)).toEqual({ value: task, modRevision: revision });
      expect([...store.snapshot.tasksOfService(task.serviceId)]).toEqual([task]);
    });

    test('what has happened is told again, step by step, as far back as it is not compacted', async () => {
      const [task, other] = [aTask(), aTask()];
      const begin = store.snapshot.revision;
      const first = await commit(put(task, 0), put(other, 0));
      const second = await commit(put({ ...task, message: 'changed' }, first));
      const third = await commit({ table: 'task', key: task.id, value: undefined, expect: second });
      await commit(put(aTask(), 0));
      const told = async (after: number, until: number) => {
        const steps: unknown[] = [];
        for await (const { revision, changes } of store.past(after, until))
          steps.push([revision, ...changes.map(({ before, after }) => [before, after])]);
        return steps;
      };
      const steps = [
        [first, [undefined, task], [undefined, other]],
        [second, [task, { ...task, message: 'changed' }]],
        [third, [{ ...task, message: 'changed' }, undefined]],
      ];
      expect(await told(begin, third)).toEqual(steps);
      expect(await told(first, second)).toEqual(steps.slice(1, 2));
      expect(await told(third, third)).toEqual([]);
      const writer = await harness.open();
      await harness.compactWhileAway(store, async () => {
        await writer.seen(await writer.commit([put({ ...other, message: 'again' }, first)]));
      });
      const last = aTask();
      const fourth = await writer.commit([put(last, 0)]);
      await store.seen(fourth);
      expect(await told(begin, fourth)).toEqual([[fourth, [undefined, last]]]);
      await writer.close();
    });

    test('all records are handed out as they were at one revision, whatever is written meanwhile', async () => {
      const tasks = Array.from({ length: 1_200 }, (_, index) => aTask({ id: taskId(`dump-${index}`) }));
      const revision = await commit(...tasks.map((task) => put(task, 0)));
      const found = new Map<string, string>();
      let pages = 0;
      for await (const page of store.dump()) {
        expect(page.revision).toBe(revision);
        for (const { path, text } of page.records) found.set(path, text);
        if (pages++ === 0) await commit({ ...put(tasks[1_199]!, revision), value: undefined });
      }
      expect(found.size).toBe(tasks.length);
      expect(JSON.parse(found.get('task/dump-7')!)).toEqual(tasks[7]);
    });

    test('a commit of nothing changes nothing', async () => {
      const before = store.snapshot.revision;
      expect(await store.commit([])).toBe(before);
    });

    test('a guard of 0 refuses a record that exists', async () => {
      const task = aTask();
      await commit(put(task, 0));
      await expect(store.commit([put(task, 0)])).rejects.toEqual(faultOf('conflict'));
    });

    test('a guard refuses a record that somebody changed, and names it', async () => {
      const task = aTask();
      const first = await commit(put(task, 0));
      await commit(put({ ...task, message: 'second' }, first));
      const stale = store.commit([put({ ...task, message: 'third' }, first)]);
      await expect(stale).rejects.toEqual(faultOf('conflict'));
      await expect(stale).rejects.toThrow(task.id);
      expect(store.snapshot.task(task.id)?.message).toBe('second');
    });

    test('a guard refuses a record that was removed meanwhile', async () => {
      const task = aTask();
      const first = await commit(put(task, 0));
      await commit({ table: 'task', key: task.id, value: undefined, expect: first });
      expect(store.snapshot.task(task.id)).toBeUndefined();
      await expect(store.commit([put(task, first)])).rejects.toEqual(faultOf('conflict'));
    });

    test('one stale guard keeps all changes of its commit out', async () => {
      const [stale, fresh] = [aTask(), aTask()];
      await commit(put(stale, 0));
      await expect(store.commit([put(fresh, 0), put(stale, 0)])).rejects.toEqual(faultOf('conflict'));
      const marker = aTask();
      await commit(put(marker, 0));
      expect(store.snapshot.task(fresh.id)).toBeUndefined();
    });

    test('all changes of a commit appear in one step, at one revision', async () => {
      const service = aService();
      const tasks = [aTask({ serviceId: service.id }), aTask({ serviceId: service.id })];
      const deltas: Delta[] = [];
      store.subscribe((delta) => deltas.push(delta));
      const revision = await commit(
        { table: 'service', key: service.id, value: service, expect: 0 },
        ...tasks.map((task) => put(task, 0)),
      );
      expect(deltas).toHaveLength(1);
      expect(deltas[0]?.revision).toBe(revision);
      expect(deltas[0]?.changes.map(({ table }) => table).sort()).toEqual(['service', 'task', 'task']);
      expect(store.snapshot.serviceNamed(service.spec.project, service.spec.name)?.id).toBe(service.id);
    });

    test('a delta tells what was there before and what is there after', async () => {
      const task = aTask();
      const deltas: Delta[] = [];
      store.subscribe((delta) => deltas.push(delta));
      const first = await commit(put(task, 0));
      const changed = { ...task, message: 'changed' };
      const second = await commit(put(changed, first));
      await commit({ table: 'task', key: task.id, value: undefined, expect: second });
      expect(deltas.flatMap(({ changes }) => changes.map(({ before, after }) => [before, after]))).toEqual([
        [undefined, task],
        [task, changed],
        [changed, undefined],
      ]);
    });

    test('F4: deltas come in the order of their revisions, and the snapshot is at each while it is told', async () => {
      const told: [number, number][] = [];
      store.subscribe((delta) => told.push([delta.revision, store.snapshot.revision]));
      const revisions = await Promise.all(
        Array.from({ length: 30 }, async (_, index) => {
          if (index % 3 === 0) await store.seen(store.snapshot.revision);
          return store.commit([put(aTask(), 0)]);
        }),
      );
      await store.seen(Math.max(...revisions));
      expect(told.map(([revision]) => revision)).toEqual(
        [...new Set(told.map(([revision]) => revision))].sort((a, b) => a - b),
      );
      for (const [revision, snapshot] of told) expect(snapshot).toBe(revision);
      expect(store.snapshot.count('task')).toBe(30);
    });

    test('of many commits at once, the stale ones fail and the others go through', async () => {
      const taken = aTask();
      await commit(put(taken, 0));
      const results = await Promise.allSettled(
        Array.from({ length: 40 }, (_, index) => store.commit([put(index % 4 === 0 ? taken : aTask(), 0)])),
      );
      expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(30);
      for (const result of results)
        if (result.status === 'rejected') expect(result.reason).toEqual(faultOf('conflict'));
    });

    test('F7: of many commits that want one record at one revision, one wins', async () => {
      const task = aTask();
      const first = await commit(put(task, 0));
      const results = await Promise.allSettled(
        Array.from({ length: 20 }, (_, index) => store.commit([put({ ...task, slot: index }, first)])),
      );
      const won = results.flatMap((result, index) => (result.status === 'fulfilled' ? [index] : []));
      expect(won).toHaveLength(1);
      await eventually(() => store.snapshot.task(task.id)?.slot === won[0]);
    });

    test('a store that opens later finds all there is', async () => {
      const task = aTask();
      const revision = await commit(put(task, 0));
      const other = await harness.open();
      expect(other.snapshot.get('task', task.id)).toEqual({ value: task, modRevision: revision });
      await other.close();
    });

    test('what one store commits another sees', async () => {
      const other = await harness.open();
      const task = aTask();
      await other.seen(await commit(put(task, 0)));
      expect(other.snapshot.task(task.id)).toEqual(task);
      await other.close();
    });

    test('waiting for a revision ends when its signal aborts', async () => {
      const controller = new AbortController();
      const waiting = store.seen(store.snapshot.revision + 1_000, controller.signal);
      controller.abort(new Fault('cancelled', 'enough'));
      await expect(waiting).rejects.toEqual(faultOf('cancelled'));
    });

    test('2,000 records go in one commit, and more than a transaction holds are refused whole', async () => {
      const revision = await commit(...Array.from({ length: 2_000 }, () => put(aTask(), 0)));
      expect(store.snapshot.count('task')).toBe(2_000);
      for (const { id } of store.snapshot.all('task'))
        expect(store.snapshot.get('task', id)?.modRevision).toBe(revision);
      const tooMany = Array.from({ length: 8_192 }, () => put(aTask(), 0));
      await expect(store.commit(tooMany)).rejects.toEqual(faultOf('exhausted'));
    });

    test('5,000 records are found by a store that opens later', async () => {
      await commit(...Array.from({ length: 2_500 }, () => put(aTask(), 0)));
      await commit(...Array.from({ length: 2_500 }, () => put(aTask(), 0)));
      const other = await harness.open();
      expect(other.snapshot.count('task')).toBe(5_000);
      expect(other.snapshot.revision).toBe(store.snapshot.revision);
      await other.close();
    });

    describe('leadership', () => {
      const first = { epoch: 1, replica: 'm1', address: '127.0.0.1:7400' };
      const second = { epoch: 2, replica: 'm2', address: '127.0.0.1:7500' };

      test('is taken where nobody led, and heard of everywhere', async () => {
        const other = await harness.open();
        expect(store.leadership).toBeUndefined();
        const heard: unknown[] = [];
        other.onLeadership((leadership) => heard.push(leadership));
        expect(await store.takeLeadership(undefined, first)).toBe(true);
        expect(store.leadership).toEqual(first);
        await eventually(() => other.leadership);
        expect(other.leadership).toEqual(first);
        expect(heard).toEqual([first]);
        expect(await other.readLeadership()).toEqual(first);
        await other.close();
      });

      test('goes to one of two who want it at once', async () => {
        const other = await harness.open();
        const won = await Promise.all([
          store.takeLeadership(undefined, first),
          other.takeLeadership(undefined, { ...second, epoch: 1 }),
        ]);
        expect(won.filter(Boolean)).toHaveLength(1);
        await other.close();
      });

      test('has seen all that was committed before it: nothing is decided on what has passed', async () => {
        const other = await harness.open();
        const task = aTask();
        await other.commit([put(task, 0)]);
        let whenTold = false;
        store.onLeadership(() => {
          whenTold = store.snapshot.task(task.id) !== undefined;
        });
        expect(await store.takeLeadership(undefined, first)).toBe(true);
        expect(store.snapshot.task(task.id)).toEqual(task);
        expect(whenTold).toBe(true);
        await other.close();
      });

      test('a commit of the epoch that leads goes through, one of another is refused', async () => {
        await store.takeLeadership(undefined, first);
        await store.commit([put(aTask(), 0)], { epoch: 1 });
        await expect(store.commit([put(aTask(), 0)], { epoch: 2 })).rejects.toEqual(faultOf('precondition'));
      });

      test('a deposed leader writes nothing, though it has not heard of it', async () => {
        const other = await harness.open();
        await store.takeLeadership(undefined, first);
        await eventually(() => other.leadership);
        const taken = other.takeLeadership(first, second);
        // In the same moment, before any word of the other's taking can have come.
        const results = await Promise.allSettled(
          Array.from({ length: 5 }, async () => {
            await taken;
            await store.commit([put(aTask(), 0)], { epoch: 1 });
          }),
        );
        expect(await taken).toBe(true);
        for (const result of results)
          expect(result).toMatchObject({ status: 'rejected', reason: faultOf('precondition') });
        expect(store.snapshot.count('task')).toBe(0);
        await other.close();
      });
    });

    test('a store that missed history finds what was put, changed and removed meanwhile', async () => {
      const [kept, changed, removed, added] = [aTask(), aTask(), aTask(), aTask()];
      const revision = await commit(put(kept, 0), put(changed, 0), put(removed, 0));
      const deltas: Delta[] = [];
      store.subscribe((delta) => deltas.push(delta));
      const other = await harness.open();
      let last = 0;
      await harness.compactWhileAway(store, async () => {
        await other.commit([put({ ...changed, message: 'one' }, revision)]);
        await other.commit([{ table: 'task', key: removed.id, value: undefined, expect: revision }]);
        last = await other.commit([put(added, 0)]);
      });
      await store.seen(last);
      expect(new Set([...store.snapshot.all('task')].map(({ id }) => id))).toEqual(
        new Set([kept.id, changed.id, added.id]),
      );
      expect(store.snapshot.task(changed.id)?.message).toBe('one');
      const told = deltas.flatMap(({ changes }) => changes.map(({ key }) => key)).sort();
      expect(told).toEqual([changed.id, removed.id, added.id].sort());
      const revisions = deltas.map((delta) => delta.revision);
      expect(revisions).toEqual([...revisions].sort((a, b) => a - b));
      const after = aTask();
      await commit(put(after, 0));
      expect(store.snapshot.task(after.id)).toEqual(after);
      await other.close();
    });

    test('a closed store refuses commits and ends those who wait', async () => {
      const waiting = store.seen(store.snapshot.revision + 1_000);
      waiting.catch(() => {});
      await store.close();
      await expect(waiting).rejects.toEqual(faultOf('unavailable'));
      await expect(store.commit([put(aTask(), 0)])).rejects.toEqual(faultOf('unavailable'));
    });
  });
}
