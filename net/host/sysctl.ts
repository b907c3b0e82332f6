/** Kernel settings of the network namespace this thread is in. */
import fs from 'node:fs';
import { Fault } from '#proto/kernel/errors.ts';

const fileOf = (name: string) => `/proc/sys/${name.replaceAll('.', '/')}`;

/** The setting's value; undefined where the kernel has none of that name. */
export function readSysctl(name: string): string | undefined {
  try {
    return fs.readFileSync(fileOf(name), 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw translate(name, error);
  }
}

export function writeSysctl(name: string, value: string): void {
  try {
    fs.writeFileSync(fileOf(name), value);
  } catch (error) {
    throw translate(name, error);
  }
}

function translate(name: string, error: unknown): Fault {
  const code = (error as NodeJS.ErrnoException).code ?? '';
  const fault = code === 'EROFS' || code === 'EACCES' || code === 'EPERM' ? 'forbidden' : 'internal';
  return new Fault(fault, `sysctl ${name}: ${code}`, { cause: error, remedy: `is ${fileOf(name)} writable here?` });
}
