/**
 * `npm run chaos -- [--rounds 30] [--minutes M] [--seed N] [--only NAME_OR_F12[,…]]`: one fault after the other on a real cluster, with writes going on.
 * Ends with 1 where an invariant did not hold in time, or something was left behind.
 */
import { parseArgs } from 'node:util';
import { systemClock } from '#proto/kernel/clock.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { ChaosLab, chaosWishes, chosenFaults } from '#test/support/chaos.ts';
import { startCluster } from '#test/support/cluster.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '30' },
    minutes: { type: 'string', default: '0' },
    seed: { type: 'string', default: '' },
    only: { type: 'string', default: '' },
  },
});
const minutes = Number(values.minutes);
const rounds = minutes > 0 ? 10 : Number(values.rounds);
const only = values.only.split(',').filter(Boolean);
let seed = values.seed === '' ? systemRandom.int(2 ** 31) : Number(values.seed);
const print = (line: string) => process.stdout.write(`${line}\n`);
chosenFaults(only);
const endAt = systemClock.monotonic() + minutes * 60_000;
let broken = 0;
do {
  print(`seed ${seed}, ${rounds} rounds`);
  const cluster = await startCluster(3, chaosWishes);
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => void cluster.close().then(() => process.exit(130)));
  try {
    const lab = await ChaosLab.start(cluster);
    const { failures: unwell, convergedMs, counts, writes } = await lab.run({ rounds, seed, only, log: print });
    const failures = [...unwell, ...(await lab.nothingLeft())];
    lab.close();
    const longest = Math.max(...convergedMs);
    print(
      `${JSON.stringify(counts)}; ${writes.acknowledged} writes acknowledged, ${writes.refused} not; longest to be well ${longest} ms`,
    );
    for (const failure of failures) print(failure);
    if (failures.length > 0) print(`again: npm run chaos -- --seed ${seed} --rounds ${rounds}`);
    broken += failures.length;
  } finally {
    await cluster.close();
  }
  seed++;
} while (systemClock.monotonic() < endAt);
process.exit(broken > 0 ? 1 : 0);
