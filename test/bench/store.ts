/** What a commit costs on a real etcd, beside the bare write of etcd: `node test/bench/store.ts [out.json]`. */
import { writeFileSync } from 'node:fs';
import { Etcd3 } from 'etcd3';
import { openEtcdStore } from '#control-plane/store/etcd-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { aTask } from '#test/contract/store/records.ts';
import { startEtcd } from '#test/support/etcd.ts';

const singles = 500;
const batches = 10;
const batchSize = 2_000;

const percentile = (values: readonly number[], share: number) =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length * share)] ?? 0;
const putTask = (): Change => {
  const value = aTask();
  return { table: 'task', key: value.id, value, expect: 0 };
};
/** Milliseconds of each of `count` runs, after a fifth as many to warm up. */
async function time(count: number, action: () => Promise<unknown>): Promise<number[]> {
  const durations: number[] = [];
  for (let run = -count / 5; run < count; run++) {
    const began = performance.now();
    await action();
    if (run >= 0) durations.push(performance.now() - began);
  }
  return durations;
}

const etcd = await startEtcd();
const client = new Etcd3({ hosts: etcd.url });
const store = await openEtcdStore({
  address: { hosts: [etcd.url] },
  clock: systemClock,
  random: systemRandom,
  log: silentLog,
});
try {
  await store.takeLeadership(undefined, { epoch: 1, replica: 'bench', address: '127.0.0.1:1' });
  const bytes = Buffer.from(JSON.stringify(aTask()));
  const floor = await time(singles, () => client.kv.put({ key: Buffer.from('/bench'), value: bytes }));
  const commits = await time(singles, () => store.commit([putTask()], { epoch: 1 }));
  const seen = await time(singles, async () => store.seen(await store.commit([putTask()], { epoch: 1 })));

  const transactions = await time(batches, async () => {
    const changes = Array.from({ length: batchSize }, putTask);
    await store.seen(await store.commit(changes, { epoch: 1 }));
  });
  const began = performance.now();
  const revisions = await Promise.all(Array.from({ length: batchSize }, () => store.commit([putTask()], { epoch: 1 })));
  await store.seen(Math.max(...revisions));
  const mergedMs = performance.now() - began;

  const result = {
    taskBytes: bytes.length,
    etcdPutP50Ms: percentile(floor, 0.5),
    commitP50Ms: percentile(commits, 0.5),
    commitP99Ms: percentile(commits, 0.99),
    commitAndSeenP50Ms: percentile(seen, 0.5),
    commitToFloor: percentile(commits, 0.5) / percentile(floor, 0.5),
    putsPerSecondBatched: (batches * batchSize * 1_000) / transactions.reduce((sum, ms) => sum + ms, 0),
    putsPerSecondMerged: (batchSize * 1_000) / mergedMs,
  };
  console.table(Object.entries(result).map(([figure, value]) => ({ figure, value: Number(value.toFixed(2)) })));
  if (process.argv[2]) writeFileSync(process.argv[2], `${JSON.stringify(result, undefined, 2)}\n`);
} finally {
  await store.close();
  client.close();
  await etcd.close();
}
