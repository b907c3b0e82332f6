/** `gantry` on the PATH, as `npm start` puts it there: a small script, which says what is wrong where what it calls is gone. */
import { existsSync, lstatSync, readFileSync, rmSync, writeFileSync } from 'node:fs';

export const wrapperPath = '/usr/local/bin/gantry';
const mark = '# Written by "npm start" of Gantry.';

/** What it runs: absolute paths. */
export interface Wrapped {
  readonly node: string;
  readonly main: string;
  readonly cache: string;
}

/** Whether it is there now: a file that somebody else put there stays as it is. A link to nothing is nobody's. */
export function installWrapper(path: string, { node, main, cache }: Wrapped): boolean {
  if (!isOurs(path) && existsSync(path)) return false;
  const gone = `gantry: this is run from ${main}, which is gone\n  → npm start where Gantry is now, or rm ${path}`;
  const text = `#!/bin/sh
${mark}
if [ ! -e '${main}' ] || [ ! -x '${node}' ]; then
  printf '%s\\n' '${gone.replaceAll('\n', "' '")}' >&2
  exit 127
fi
NODE_COMPILE_CACHE='${cache}' exec '${node}' '${main}' "$@"
`;
  // Not through a link: what it leads to is not ours.
  rmSync(path, { force: true });
  writeFileSync(path, text, { mode: 0o755 });
  return true;
}

/** Whether the file there is what `installWrapper` writes. */
export function isOurs(path: string): boolean {
  const isFile = lstatSync(path, { throwIfNoEntry: false })?.isFile() ?? false;
  return isFile && readFileSync(path, 'utf8').includes(mark);
}
