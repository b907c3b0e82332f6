/** Which run of which machine this is: the kernel draws an id at each boot (proc(5), /proc/sys/kernel/random/boot_id). */
import { readFileSync } from 'node:fs';
import { Fault } from './errors.ts';

export const bootIdFile = '/proc/sys/kernel/random/boot_id';

/** The boot id in `path`. Faults: `precondition`. */
export function readBootId(path = bootIdFile): string {
  try {
    const id = readFileSync(path, 'utf8').trim();
    if (id !== '') return id;
  } catch (error) {
    throw new Fault('precondition', `the boot id cannot be read: ${(error as Error).message}`, { cause: error });
  }
  throw new Fault('precondition', `the boot id in ${path} is empty`, { remedy: 'check --boot-id-file' });
}
