/** How samples are taken and summed up: percentiles, many at once, and memory that is nobody else's. */
import { readFileSync } from 'node:fs';

/** The sample below which `share` (0 to 1) of them lie; 0 for none. */
export function percentile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0;
}

export function median(samples: readonly number[]): number {
  return percentile(samples, 0.5);
}

export function sum(samples: readonly number[]): number {
  return samples.reduce((total, one) => total + one, 0);
}

/** Runs `action` for 0 … count-1, `width` at once; resolves to the milliseconds all of it took. */
export async function inParallel(
  count: number,
  width: number,
  action: (index: number) => Promise<unknown>,
): Promise<number> {
  const began = performance.now();
  let next = 0;
  const work = async () => {
    while (next < count) await action(next++);
  };
  await Promise.all(Array.from({ length: width }, work));
  return performance.now() - began;
}

/** What a process alone holds in memory, in bytes: its private pages; 0 for one that has ended. */
export function privateBytes(pid: number): number {
  try {
    const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
    return sum([...rollup.matchAll(/^Private_(?:Clean|Dirty):\s+(\d+) kB/gm)].map((match) => Number(match[1]))) * 1024;
  } catch {
    return 0;
  }
}

/** The command line of a process, words apart by a space; empty for one that has ended. */
export function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
  } catch {
    return '';
  }
}
