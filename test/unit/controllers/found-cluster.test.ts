/** The record of the cluster: made once, completed where it is older than a setting, changed by no flag. */
import { expect, it } from 'vitest';
import { foundCluster, founded, ownNetwork6 } from '#control-plane/controllers/found-cluster.ts';
import { readSetting } from '#control-plane/reconcilers/cluster-settings.ts';
import { MemoryEtcd } from '#control-plane/store/memory-store.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import { aCluster, aNode } from '#test/support/builders.ts';

const asked = { network: '10.192.0.0/11', vipNetwork: '10.224.0.0/14', domain: 'gantry.internal', nats: '' };
const parts = { random: seededRandom(1), log: silentLog };

it('a new cluster has a /96 of its own, made of its id', async () => {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  await foundCluster(store, asked, parts);
  const { id, network6, encapsulation, encryption } = store.snapshot.cluster!;
  expect(network6).toBe(ownNetwork6(id));
  expect(network6).toMatch(/^fd[0-9a-f]{2}:[0-9a-f:]+::\/96$/);
  expect(readSetting('network6', network6)).toBe(network6);
  expect(ownNetwork6('another')).not.toBe(network6);
  expect([encapsulation, encryption]).toEqual(['auto', '']);
});

it('a cluster takes what it is first started with, and no flag changes it later', async () => {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  await foundCluster(
    store,
    { ...asked, network6: 'fd00::/96', encapsulation: 'always', encryption: 'wireguard' },
    parts,
  );
  const first = store.snapshot.get('cluster', 'config')!;
  expect(first.value).toMatchObject({ network6: 'fd00::/96', encapsulation: 'always', encryption: 'wireguard' });
  await foundCluster(store, { ...asked, network6: '', encapsulation: 'never', network: '10.0.0.0/16' }, parts);
  expect(store.snapshot.get('cluster', 'config')).toEqual(first);
});

it('a cluster of before gets what it lacks, and nothing else changes', async () => {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  const { network6: _, encapsulation: __, encryption: ___, ...old } = aCluster({ id: 'old', natsUrl: 'tls://m1:4222' });
  await store.seen(
    await store.commit([{ table: 'cluster', key: 'config', value: old as ReturnType<typeof aCluster>, expect: 0 }]),
  );
  await foundCluster(store, asked, parts);
  expect(store.snapshot.cluster).toEqual({
    ...old,
    network6: ownNetwork6('old'),
    encapsulation: 'auto',
    encryption: '',
  });
});

it('waits where another manager is to found it', async () => {
  const store = new MemoryEtcd({ clock: systemClock }).open();
  let there = false;
  const waits = founded(store).then(() => {
    there = true;
  });
  await store.seen(await store.commit([{ table: 'node', key: 'n', value: aNode('n'), expect: 0 }]));
  expect(there).toBe(false);
  await foundCluster(store, asked, parts);
  await waits;
  await founded(store);
  await store.close();
});
