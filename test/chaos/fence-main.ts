/** `npm run chaos:fence -- --rounds 100 --seed 7`: so many faults against a singleton, and by its own log it never runs twice. `--managers 3`: a stopped leader has successors. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemRandom } from '#proto/kernel/random.ts';
import { startCluster } from '#test/support/cluster.ts';
import { FenceLab } from '#test/support/fence-lab.ts';

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '100' },
    seed: { type: 'string', default: '' },
    /** Only this fault. */
    fault: { type: 'string', default: '' },
    /** One or three. */
    managers: { type: 'string', default: '1' },
  },
});
const rounds = Number(values.rounds);
const seed = values.seed === '' ? systemRandom.int(2 ** 31) : Number(values.seed);
const print = (line: string) => process.stdout.write(`${line}\n`);
print(`seed ${seed}, ${rounds} rounds`);
const directory = mkdtempSync(join(tmpdir(), 'fence-'));
const cluster = await startCluster(3, { managers: Number(values.managers) });
let failed = true;
const close = async () => {
  await cluster.close();
  rmSync(directory, { recursive: true, force: true });
};
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void close().then(() => process.exit(130)));
try {
  const lab = new FenceLab(cluster, join(directory, 'shared'));
  await cluster.apply(lab.project);
  const first = values.fault === '' ? [] : Array.from({ length: rounds }, () => values.fault);
  const { counts, overlaps, silences } = await lab.run({ rounds, seed, log: print, first });
  const sorted = silences.map(({ ms }) => ms).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
  print(JSON.stringify(counts));
  print(`silent for p50 ${at(0.5)} ms, p90 ${at(0.9)} ms, p99 ${at(0.99)} ms, longest ${at(1)} ms`);
  for (const { first, second, ms } of overlaps) print(`OVERLAP of ${first} and ${second}: ${ms} ms`);
  print(`${overlaps.length} overlaps in ${lab.beats().length} lines of ${rounds} rounds; seed ${seed}`);
  failed = overlaps.length > 0;
} finally {
  await close();
}
process.exit(failed ? 1 : 0);
