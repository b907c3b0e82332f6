/** One process to a directory: two at work in it would take each other's files, containers and rules for damage or leftovers. */
import { spawnSync } from 'node:child_process';
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from './kernel/errors.ts';

const holders = {
  agent: { words: 'an agent', remedy: 'stop it first (systemctl stop gantry-agent), or give another --run' },
  'control-plane': {
    words: 'a control plane',
    remedy: 'stop it first (systemctl stop gantry-control-plane), or give another --data',
  },
} as const;

/** What `flock -n` ends with where another process has the lock. */
const taken = 1;

/**
 * Holds `directory` until the returned function is called or the process ends, however it ends: the kernel lets go of the lock
 * with the last descriptor of the open file, and none is passed on. `flock` sets it on the descriptor that it inherits and ends,
 * so that nobody needs native code for it. Faults: `conflict` where another process holds it; `unavailable` where flock does not run.
 */
export function holdDirectory(directory: string, holder: keyof typeof holders): () => void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  const fd = openSync(join(directory, `${holder}.lock`), 'a', 0o600);
  try {
    const { status, error } = spawnSync('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', fd] });
    const { words, remedy } = holders[holder];
    if (status === taken) throw new Fault('conflict', `${words} is at work in ${directory}`, { remedy });
    if (status !== 0)
      throw new Fault('unavailable', `flock cannot lock ${directory}: ${error?.message ?? `it ended with ${status}`}`, {
        remedy: 'install util-linux, which every distribution has',
      });
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return () => closeSync(fd);
}
