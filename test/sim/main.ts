/** `npm run sim -- --seed N`: one story, twice, with its log; `--count M`: as many seeds from N on, without. */
import { parseArgs } from 'node:util';
import { jsonLog, silentLog } from '#proto/kernel/log.ts';
import { tell } from './story.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    count: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
  },
});
const log = values.verbose
  ? jsonLog(
      (line) => process.stderr.write(line),
      () => 0,
      'debug',
    )
  : silentLog;
let failed = 0;
for (let seed = Number(values.seed); seed < Number(values.seed) + Number(values.count); seed++) {
  try {
    const first = await tell(seed, log);
    const second = await tell(seed);
    const equal = first.trace === second.trace;
    if (!equal) failed++;
    const { settledAfterMs, revision } = first;
    const line = { seed, settledAfterMs, revision, trace: first.trace.slice(0, 16), equal };
    process.stdout.write(`${JSON.stringify(line)}\n`);
  } catch (error) {
    failed++;
    process.stdout.write(`${error instanceof Error ? error.message : error}\n`);
  }
}
process.exitCode = failed > 0 ? 1 : 0;
