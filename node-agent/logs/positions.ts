/** How far each log has gone out, on disk, so that the next agent goes on from there. */
import { mkdir, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

/** `file`: inode and birth time, since inodes are used again. `base`: bytes of the files before this one. */
export interface Position {
  readonly file: string;
  readonly base: number;
  readonly offset: number;
}

export interface Positions {
  read(task: string): Promise<Position | undefined>;
  write(task: string, position: Position): Promise<void>;
  forget(task: string): Promise<void>;
  /** Tasks that have one. */
  list(): Promise<readonly string[]>;
}

/** A small file per task in `directory`, replaced as a whole. */
export async function positionFiles(directory: string): Promise<Positions> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const path = (task: string) => join(directory, `${task}.json`);
  return {
    async read(task) {
      try {
        const { file, base, offset } = JSON.parse(await readFile(path(task), 'utf8')) as Partial<Position>;
        if (typeof file === 'string' && Number.isSafeInteger(base) && Number.isSafeInteger(offset))
          return { file, base: base!, offset: offset! };
      } catch {
        // None, or not readable: the log is sent from its start, and readers drop what they know.
      }
      return undefined;
    },
    async write(task, position) {
      await writeFile(`${path(task)}.new`, JSON.stringify(position), { mode: 0o600 });
      await rename(`${path(task)}.new`, path(task));
    },
    async forget(task) {
      await rm(path(task), { force: true });
      await rm(`${path(task)}.new`, { force: true });
    },
    list: async () =>
      (await readdir(directory)).filter((name) => name.endsWith('.json')).map((name) => name.slice(0, -5)),
  };
}
