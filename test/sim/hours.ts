/** How long clusters have been simulated in all, kept in a file beside the code: hours, seeds, and those that broke. */
import { readFileSync, writeFileSync } from 'node:fs';

export interface BrokenSeed {
  /** Its plot; absent: `first`. */
  readonly story?: string;
  readonly seed: number;
  /** The code it broke. */
  readonly commit: string;
  readonly why: string;
}

/** A sum over all nights. */
export interface Hours {
  /** Simulated time of whole clusters, each story counted once although it is told twice. */
  readonly hours: number;
  /** Of those, with faults on or just over. */
  readonly troubledHours: number;
  readonly seeds: number;
  /** The seed that the next night begins with. */
  readonly nextSeed: number;
  /** Of the code of the last night. */
  readonly commit: string;
  readonly broken: readonly BrokenSeed[];
}

export const noHours: Hours = { hours: 0, troubledHours: 0, seeds: 0, nextSeed: 1_000_000, commit: '', broken: [] };

export function readHours(file: string): Hours {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as Hours;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return noHours;
    throw error;
  }
}

export function writeHours(file: string, hours: Hours): void {
  const round = (number: number) => Math.round(number * 1_000) / 1_000;
  const rounded = { ...hours, hours: round(hours.hours), troubledHours: round(hours.troubledHours) };
  writeFileSync(file, `${JSON.stringify(rounded, null, 2)}\n`);
}
