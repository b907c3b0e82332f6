/** The journal's lines in a file: appended, and replaced by rename. */
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { JournalFile } from './journal.ts';

/** Synchronous on purpose: a line costs some 20 µs, and what follows a status must not overtake it. */
export function journalFile(path: string): JournalFile & { close(): void } {
  mkdirSync(dirname(path), { recursive: true, mode: 0o700 });
  let descriptor = openSync(path, 'a', 0o600);
  const guarded = <T>(action: () => T): T => {
    try {
      return action();
    } catch (error) {
      throw new Fault('exhausted', `cannot write the agent's journal ${path}: ${(error as Error).message}`, {
        cause: error,
        remedy: 'free space on that disk; the agent needs it to know its tasks after a restart',
      });
    }
  };
  return {
    read: () => {
      const text = readFileSync(path, 'utf8');
      // A torn last line must not swallow the next one.
      if (text !== '' && !text.endsWith('\n')) writeSync(descriptor, '\n');
      return text;
    },
    append: (text) =>
      guarded(() => {
        const bytes = Buffer.from(text);
        const written = writeSync(descriptor, bytes);
        if (written < bytes.length) throw new Error(`only ${written} of ${bytes.length} bytes could be written`);
      }),
    replace: (text) =>
      guarded(() => {
        const next = `${path}.next`;
        try {
          writeFileSync(next, text, { mode: 0o600 });
        } catch (error) {
          rmSync(next, { force: true });
          throw error;
        }
        renameSync(next, path);
        closeSync(descriptor);
        descriptor = openSync(path, 'a', 0o600);
      }),
    close: () => closeSync(descriptor),
  };
}
