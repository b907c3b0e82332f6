/** One agent to a run directory: two would take each other's containers and rules for leftovers. */
import { closeSync, mkdirSync, openSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import { tryLock } from './runtime/libc.ts';

/** Holds `run` until the returned function is called or the process ends, however it ends. Fault `conflict` where another process holds it. */
export function holdRunDirectory(run: string): () => void {
  mkdirSync(run, { recursive: true, mode: 0o700 });
  const file = join(run, 'agent.lock');
  const fd = openSync(file, 'a', 0o600);
  try {
    if (!tryLock(fd)) {
      throw new Fault('conflict', `an agent is at work in ${run}`, {
        remedy: 'stop it first (systemctl stop gantry-agent), or give another --run',
      });
    }
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  return () => closeSync(fd);
}
