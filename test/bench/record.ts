/** What a run of a bench leaves behind: its figures as JSON in `out/`, with the machine that they are of. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus, release, totalmem } from 'node:os';
import { join } from 'node:path';

/** Writes the record of a run that began at `beganAtMs` (wall clock); its path. `prefix`: of the file's name. */
export function writeRecord(prefix: string, beganAtMs: number, fields: Readonly<Record<string, unknown>>): string {
  const at = new Date(beganAtMs).toISOString();
  const machine = {
    cores: cpus().length,
    model: cpus()[0]?.model,
    memoryBytes: totalmem(),
    kernel: release(),
    node: process.version,
  };
  const directory = join(import.meta.dirname, 'out');
  mkdirSync(directory, { recursive: true });
  const path = join(directory, `${prefix}${at.replaceAll(':', '').slice(0, 17)}.json`);
  writeFileSync(path, `${JSON.stringify({ at, machine, ...fields }, undefined, 2)}\n`);
  return path;
}
