/** Stories without end: seed after seed, each told twice, with a line each minute and the sum kept in a file. */
import { execFileSync } from 'node:child_process';
import { systemClock } from '#proto/kernel/clock.ts';
import { type Hours, readHours, writeHours } from './hours.ts';
import type { Plot } from './plot.ts';
import { BrokenStory, tell } from './story.ts';

const reportEveryMs = 60_000;

export interface NightOptions {
  readonly plot: Plot;
  /** Where the sum is kept. */
  readonly file: string;
  /** undefined: where the last night ended. */
  readonly from: number | undefined;
  readonly signal: AbortSignal;
  readonly print: (line: string) => void;
}

/** Goes on until the signal says stop, and beyond a broken seed. Resolves with how many broke. */
export async function nightly({ plot, file, from, signal, print }: NightOptions): Promise<number> {
  const commit = commitHere();
  let sum: Hours = { ...readHours(file), commit };
  if (from !== undefined) sum = { ...sum, nextSeed: from };
  const began = { ...sum, atMs: systemClock.monotonic() };
  let reportedMs = began.atMs;
  const report = () => {
    writeHours(file, sum);
    const hours = sum.hours - began.hours;
    const worked = (systemClock.monotonic() - began.atMs) / 3_600_000;
    const broken = sum.broken.length - began.broken.length;
    print(
      `${sum.seeds - began.seeds} seeds, ${hours.toFixed(1)} cluster-hours (${(hours / worked).toFixed(0)} an hour), ${broken} broken; ` +
        `in all ${sum.seeds} seeds, ${sum.hours.toFixed(1)} cluster-hours, next seed ${sum.nextSeed}`,
    );
  };
  while (!signal.aborted) {
    const seed = sum.nextSeed;
    try {
      const one = await tell(seed, { plot });
      const two = await tell(seed, { plot });
      if (one.trace !== two.trace) throw new BrokenStory(seed, plot, '', new Error('it told two different stories'));
      sum = {
        ...sum,
        hours: sum.hours + one.lastedMs / 3_600_000,
        troubledHours: sum.troubledHours + one.troubledMs / 3_600_000,
      };
    } catch (error) {
      if (!(error instanceof BrokenStory)) throw error;
      print(`${error.message}\n`);
      sum = {
        ...sum,
        broken: [...sum.broken, { story: plot.name, seed, commit, why: error.why.split('\n')[0]!.slice(0, 200) }],
      };
    }
    sum = { ...sum, seeds: sum.seeds + 1, nextSeed: seed + 1 };
    if (systemClock.monotonic() - reportedMs < reportEveryMs) continue;
    reportedMs = systemClock.monotonic();
    report();
  }
  report();
  return sum.broken.length - began.broken.length;
}

function commitHere(): string {
  return execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8', cwd: import.meta.dirname }).trim();
}
