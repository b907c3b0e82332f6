/** A backup goes into a real etcd whole or not at all, and never over a cluster that lives. */
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { recordKey } from '#control-plane/store/codec.ts';
import { type EtcdClient, openEtcd } from '#control-plane/store/etcd-client.ts';
import { type EtcdRestore, restoreRecords } from '#control-plane/store/etcd-restore.ts';
import { openEtcdStore } from '#control-plane/store/etcd-store.ts';
import type { Store } from '#control-plane/store/store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { taskId } from '#proto/model/ids.ts';
import { aCluster, aNode } from '#test/support/builders.ts';
import { startEtcd, type TestEtcd } from '#test/support/etcd.ts';
import { aTask } from './records.ts';

const atMs = 1_700_000_000_000;
let etcd: TestEtcd;
let client: EtcdClient;
beforeAll(async () => {
  etcd = await startEtcd();
  client = openEtcd({ hosts: [etcd.url] }, systemClock.now);
});
afterAll(async () => {
  client?.close();
  await etcd?.close();
});
beforeEach(async () => {
  await client.kv.deleteRange({ key: Buffer.from('/'), range_end: Buffer.from('0') });
});

const task = aTask({ id: taskId('t1') });
const nodes = [aNode('h1', { stateAtMs: 5 }), aNode('h2', { state: 'down', stateAtMs: 5 })];
async function* records(cutAfter = Number.POSITIVE_INFINITY) {
  yield { path: 'cluster/config', value: aCluster({ id: 'c1', incarnation: 2 }) };
  for (const node of nodes) yield { path: `node/${node.id}`, value: node };
  yield { path: 'task/t1', value: task };
  for (let one = 0; one < 1_500; one++) {
    if (one >= cutAfter) throw new Fault('corrupt', 'cut');
    yield { path: `task/more-${one}`, value: { ...task, id: `more-${one}` } };
  }
}

const restore = (more: Partial<EtcdRestore> = {}) =>
  restoreRecords({
    ...{ client, id: 'r1', force: false, atMs, epoch: 41, records: records(), replica: 'm1' },
    leads: async () => false,
    ...more,
  });

async function opened(look: (store: Store) => void | Promise<void>): Promise<void> {
  const parts = { clock: systemClock, random: systemRandom, log: silentLog };
  const store = await openEtcdStore({ address: { hosts: [etcd.url] }, ...parts });
  try {
    await look(store);
  } finally {
    await store.close();
  }
}

const refused = (code: string, message: RegExp) =>
  expect.objectContaining({ name: 'Fault', code, message: expect.stringMatching(message) });

describe('a backup', () => {
  test('comes into an empty etcd as the next incarnation, with an epoch past all that were, and nodes yet to be heard', async () => {
    expect(await restore()).toBe(1_504);
    await opened(({ snapshot, leadership }) => {
      expect(snapshot.cluster).toMatchObject({ id: 'c1', incarnation: 3, restoredAtMs: atMs });
      expect(leadership).toEqual({ epoch: atMs / 1_000, replica: 'm1', address: '' });
      expect(snapshot.count('task')).toBe(1_501);
      expect(snapshot.task(task.id)).toEqual(task);
      expect(snapshot.node(nodes[0]!.id)).toMatchObject({
        state: 'unknown',
        stateAtMs: atMs,
        bootId: nodes[0]!.bootId,
        restored: true,
      });
      expect(snapshot.node(nodes[1]!.id)).toEqual({ ...nodes[1], restored: true });
    });
    await client.kv.deleteRange({ key: Buffer.from('/'), range_end: Buffer.from('0') });
    await restore({ epoch: 5e9 });
    await opened(({ leadership }) => expect(leadership?.epoch).toBe(5e9 + 1));
  });

  test('that was interrupted is no cluster for anybody, and is gone on with by who has it', async () => {
    await expect(restore({ records: records(700) })).rejects.toEqual(refused('corrupt', /cut/));
    await expect(opened(() => {})).rejects.toEqual(refused('unavailable', /being restored/));
    expect(await restore()).toBe(1_504);
    await opened(({ snapshot }) => expect(snapshot.count('task')).toBe(1_501));
  });

  test('that was interrupted gives way to another one, and nothing of it stays', async () => {
    await expect(restore({ records: records(700) })).rejects.toEqual(refused('corrupt', /cut/));
    async function* other() {
      yield { path: 'cluster/config', value: aCluster({ id: 'c2' }) };
    }
    await restore({ id: 'r2', records: other() });
    await opened(({ snapshot }) => {
      expect(snapshot.cluster?.id).toBe('c2');
      expect(snapshot.count('task')).toBe(0);
    });
  });

  test('is not put over a cluster unless that is asked for, and then nothing of that stays', async () => {
    const old = Buffer.from(recordKey('task', 'old'));
    await client.kv.put({ key: old, value: Buffer.from(JSON.stringify({ ...task, id: 'old' })) });
    await expect(restore()).rejects.toEqual(refused('precondition', /etcd holds a cluster already/));
    await opened(({ snapshot }) => expect(snapshot.count('task')).toBe(1));
    await restore({ force: true });
    await opened(({ snapshot }) => {
      expect(snapshot.get('task', 'old')).toBeUndefined();
      expect(snapshot.count('task')).toBe(1_501);
    });
  });

  test('is never put over a cluster that a replica leads', async () => {
    await opened((store) =>
      store.takeLeadership(undefined, { epoch: 9, replica: 'm2', address: '10.0.0.2:7400' }).then(() => {}),
    );
    const asked: string[] = [];
    const leads = async (address: string) => asked.push(address) > 0;
    await expect(restore({ force: true, leads })).rejects.toEqual(refused('precondition', /10.0.0.2:7400 leads/));
    expect(asked).toEqual(['10.0.0.2:7400']);
    await opened(({ leadership }) => expect(leadership?.epoch).toBe(9));
  });
});
