/** Reading and writing the files of a cgroup: what the kernel says to it, in our words. */
import { readFileSync, writeFileSync } from 'node:fs';
import { Fault } from '#proto/kernel/errors.ts';

/** Faults: `not-found` (the container has ended), `conflict` (the kernel has it in use), `invalid`. */
export function write(file: string, value: number | string): void {
  try {
    writeFileSync(file, String(value));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EBUSY') throw new Fault('conflict', `the kernel has ${file} in use`, { cause: error });
    if (code === 'ENOENT') throw ended(file, error);
    throw new Fault('invalid', `the kernel refused "${value}" for ${file}`, { cause: error });
  }
}

/** Fault `not-found`. */
export function text(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENODEV') throw error;
    throw ended(file, error);
  }
}

export function number(file: string): number {
  return Number(text(file));
}

/** The number after `name` in a file of `name number` lines; 0 where there is none. */
export function field(file: string, name: string): number {
  for (const line of text(file).split('\n')) {
    const [key, value] = line.split(' ');
    if (key === name) return Number(value);
  }
  return 0;
}

function ended(file: string, cause: unknown): Fault {
  return new Fault('not-found', `${file} does not exist: the container has ended`, { cause });
}
