/** The short form of `npm run chaos`: a few faults, drawn anew each time, on a real cluster with writes going on. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemRandom } from '#proto/kernel/random.ts';
import { ChaosLab } from '#test/support/chaos.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';

let cluster: Cluster;
let lab: ChaosLab;
beforeAll(async () => {
  cluster = await startCluster();
  lab = await ChaosLab.start(cluster);
});
afterAll(async () => {
  lab?.close();
  await cluster?.close();
});

test('after each of a few faults all is as it is wanted, no other task was touched, and at the end nothing is left', {
  timeout: 180_000,
}, async () => {
  const seed = systemRandom.int(2 ** 31);
  const log = (line: string) => process.stdout.write(`chaos, seed ${seed}: ${line}\n`);
  const { failures, writes } = await lab.run({ rounds: 6, seed, log });
  expect(failures, `again: npm run chaos -- --rounds 6 --seed ${seed}`).toEqual([]);
  expect(writes.acknowledged).toBeGreaterThan(0);
});
