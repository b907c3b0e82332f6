/** `npm run sim -- --seed N`: one story, twice; `--story first|whole|turnover|singletons|verdicts`: by which plot; `--count M`: as many seeds from N on; `--verbose`: with every line of the trace; `--shrink`: the fewest disturbances that break it; `--nightly`: without end, into a file; `--speed`: how fast they are told. */
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { systemClock } from '#proto/kernel/clock.ts';
import { assert } from '#proto/kernel/errors.ts';
import { nightly } from './nightly.ts';
import type { Plot } from './plot.ts';
import { plots } from './plots.ts';
import { speed } from './speed.ts';
import { shrink, tell } from './story.ts';

const { values } = parseArgs({
  options: {
    story: { type: 'string', default: 'whole' },
    seed: { type: 'string' },
    count: { type: 'string', default: '1' },
    verbose: { type: 'boolean', default: false },
    shrink: { type: 'boolean', default: false },
    nightly: { type: 'boolean', default: false },
    speed: { type: 'boolean', default: false },
    file: { type: 'string', default: join(import.meta.dirname, 'hours.json') },
  },
});
const plot = plots.find(({ name }) => name === values.story);
assert(plot, `--story is one of ${plots.map(({ name }) => name).join(', ')}`);
if (values.nightly) {
  const stop = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => stop.abort());
  const broken = await nightly({
    file: values.file,
    plot,
    from: values.seed === undefined ? undefined : Number(values.seed),
    signal: stop.signal,
    print: (line) => process.stdout.write(`${line}\n`),
  });
  process.exit(broken > 0 ? 1 : 0);
}
if (values.speed) {
  process.stdout.write(`${await speed(plot, Number(values.seed ?? 1), Number(values.count))}\n`);
  process.exit(0);
}
const print = values.verbose ? (line: string) => process.stdout.write(`${line}\n`) : undefined;
const first = Number(values.seed ?? 1);
const startedAt = systemClock.monotonic();
let failed = 0;
let simulatedMs = 0;
for (let seed = first; seed < first + Number(values.count); seed++) {
  try {
    const without = values.shrink ? await needless(seed, plot) : new Set<number>();
    const one = await tell(seed, { plot, print, without });
    const two = await tell(seed, { plot, without });
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

/** All disturbances but those that break the seed; none where it is not broken. */
async function needless(seed: number, plot: Plot): Promise<ReadonlySet<number>> {
  const needed = await shrink(seed, plot);
  if (needed.length === 0) return new Set();
  process.stdout.write(`seed ${seed} is broken by disturbances ${needed.join(', ')}\n`);
  return new Set(Array.from({ length: 1_000 }, (_, index) => index).filter((index) => !needed.includes(index)));
}
