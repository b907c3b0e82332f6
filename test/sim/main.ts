/** `npm run sim -- --seed N`: one story, twice; `--count M`: as many seeds from N on; `--verbose`: with every line of the trace. */
import { parseArgs } from 'node:util';
import { systemClock } from '#proto/kernel/clock.ts';
import { tell } from './story.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: '1' },
    count: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
  },
});
const print = values.verbose ? (line: string) => process.stdout.write(`${line}\n`) : undefined;
const first = Number(values.seed);
const startedAt = systemClock.monotonic();
let failed = 0;
let simulatedMs = 0;
for (let seed = first; seed < first + Number(values.count); seed++) {
  try {
    const one = await tell(seed, print);
    const two = await tell(seed);
    simulatedMs += one.lastedMs + two.lastedMs;
    const equal = one.trace === two.trace;
    if (!equal) failed++;
    process.stdout.write(`${JSON.stringify({ ...one, trace: one.trace.slice(0, 16), equal })}\n`);
  } catch (error) {
    failed++;
    process.stdout.write(`${error instanceof Error ? error.message : error}\n`);
  }
}
const minutes = (systemClock.monotonic() - startedAt) / 60_000;
const hours = simulatedMs / 3_600_000;
process.stdout.write(
  `${failed} of ${values.count} seeds failed; ${hours.toFixed(2)} simulated hours in ${minutes.toFixed(2)} minutes: ` +
    `${(hours / minutes).toFixed(2)} hours a minute\n`,
);
process.exitCode = failed > 0 ? 1 : 0;
