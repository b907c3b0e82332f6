/** `npm run chaos:rollout`: ten updates, two rollbacks, an image that never becomes healthy and five scalings under load, and how many requests failed. */
import { parseArgs } from 'node:util';
import { startCluster } from '#test/support/cluster.ts';
import { rolloutUnderLoad } from '#test/support/rollout-load.ts';

const { values } = parseArgs({
  options: { updates: { type: 'string', default: '10' }, rate: { type: 'string', default: '200' } },
});
/** After the last of its health checks a bad image is gone again within this, on a machine that does nothing else. */
const revertedWithinMs = 15_000;
const print = (line: string) => process.stdout.write(`${line}\n`);
const cluster = await startCluster();
let failed = true;
for (const signal of ['SIGINT', 'SIGTERM'] as const)
  process.once(signal, () => void cluster.close().then(() => process.exit(130)));
try {
  const happenings = { updates: Number(values.updates), rollbacks: 2, badImages: 1, scalings: 5 };
  const report = await rolloutUnderLoad(cluster, happenings, { rate: Number(values.rate), log: print });
  const { asked, good, bad } = report.load;
  print(JSON.stringify(report, undefined, 2));
  const late = report.revertedAfterMs.filter((ms) => ms > revertedWithinMs);
  failed = good !== asked || late.length > 0;
  if (late.length > 0) print(`reverting took ${late.map(Math.round).join(', ')} ms, more than ${revertedWithinMs}`);
  print(`${asked - good} of ${asked} requests failed${bad.length > 0 ? `, such as ${bad[0]}` : ''}`);
} finally {
  await cluster.close();
}
process.exit(failed ? 1 : 0);
