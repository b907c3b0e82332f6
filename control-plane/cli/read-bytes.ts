/** A file that the user names, or what comes in by `-`. */
import { readFileSync } from 'node:fs';
import { Fault } from '#proto/kernel/errors.ts';

/** Faults: `not-found`. */
export function readBytes(path: string, remedy = 'correct the path, or create the file'): Buffer {
  try {
    return readFileSync(path === '-' ? 0 : path);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    const why = code === 'ENOENT' ? 'is not there' : code === 'EISDIR' ? 'is a directory' : `cannot be read: ${code}`;
    throw new Fault('not-found', `${path} ${why}`, { remedy });
  }
}
