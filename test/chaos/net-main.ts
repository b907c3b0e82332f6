/** `npm run chaos:net -- --rounds 200 --seed 7`: that many faults of the network in a row on a real cluster, each held to the oracle. */
import { parseArgs } from 'node:util';
import { systemRandom } from '#proto/kernel/random.ts';
import { startCluster } from '#test/support/cluster.ts';
import { convergeMs, FaultLab, faultsProject } from '#test/support/net-faults.ts';

const { values } = parseArgs({
  options: { rounds: { type: 'string', default: '200' }, seed: { type: 'string', default: '' } },
});
const rounds = Number(values.rounds);
const seed = values.seed === '' ? systemRandom.int(2 ** 31) : Number(values.seed);
const print = (line: string) => process.stdout.write(`${line}\n`);
print(`seed ${seed}, ${rounds} rounds`);
const cluster = await startCluster();
const lab = new FaultLab(cluster);
let failed = true;
const close = async () => {
  lab.close();
  await cluster.close();
};
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void close().then(() => process.exit(130)));
try {
  await cluster.apply(faultsProject);
  await cluster.settled('web', 6);
  const { failures, convergedMs, counts } = await lab.run({ rounds, seed, log: print });
  const sorted = [...convergedMs].sort((a, b) => a - b);
  const at = (share: number) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0);
  print(
    `${JSON.stringify(counts)}; right after p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`,
  );
  for (const failure of failures) print(failure);
  failed = failures.length > 0;
  print(
    failed
      ? `${failures.length} lines of failure; seed ${seed}`
      : `all ${rounds} rounds right within ${convergeMs} ms; seed ${seed}`,
  );
} finally {
  await close();
}
process.exit(failed ? 1 : 0);
