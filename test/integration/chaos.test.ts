/** The short form of `npm run chaos`: a few faults, drawn anew each time, on a real cluster with writes going on. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemRandom } from '#proto/kernel/random.ts';
import { ChaosLab, chaosWishes } from '#test/support/chaos.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';

let cluster: Cluster;
let lab: ChaosLab;
beforeAll(async () => {
  cluster = await startCluster(3, chaosWishes);
  lab = await ChaosLab.start(cluster);
});
afterAll(async () => {
  lab?.close();
  await cluster?.close();
});

/** Another file's cluster lives beside this one: how soon all is well again is for `npm run chaos` to say. */
const withinMs = 30_000;
const seed = systemRandom.int(2 ** 31);
async function survives(rounds: number, ...only: string[]): Promise<void> {
  const log = (line: string) => process.stdout.write(`chaos, seed ${seed}: ${line}\n`);
  const { failures, writes } = await lab.run({ rounds, seed, only, withinMs, log });
  const again = `npm run chaos -- --rounds ${rounds} --seed ${seed}${only.length > 0 ? ` --only ${only.join()}` : ''}`;
  expect(failures, again).toEqual([]);
  expect(writes.acknowledged).toBeGreaterThan(0);
}

test('F34: a flood of logs moves nobody', () => survives(1, 'F34'));

test('F30: a cable that is cut one way, lossy or flapping does no more than it must', () => survives(2, 'F30'));

test('after each of a few faults all is as it is wanted, and no other task was touched', { timeout: 180_000 }, () =>
  survives(4),
);

test('nothing is left of it', async () => {
  expect(await lab.nothingLeft()).toEqual([]);
});
