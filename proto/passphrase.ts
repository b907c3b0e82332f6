/** The passphrase of a backup: the first line of a file. */
import { readFileSync } from 'node:fs';
import { Fault } from './kernel/errors.ts';

/** Faults: `invalid` where there is none in it. */
export function readPassphrase(path: string): string {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    throw new Fault('invalid', `--passphrase-file ${path} cannot be read: ${(error as NodeJS.ErrnoException).code}`, {
      cause: error,
    });
  }
  const [line = ''] = text.split(/\r?\n/);
  if (line.trim() === '')
    throw new Fault('invalid', `--passphrase-file ${path} has no passphrase in its first line`, {
      remedy: 'make one: head -c 24 /dev/urandom | base64 > FILE',
    });
  return line;
}
