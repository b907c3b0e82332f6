/** The end of the lease on disk (tmpfs), for all who look after singletons: the guards, the agent, and those that come after them. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export const leaseFile = 'lease';

export interface LeaseFile {
  readonly path: string;
  /** Boot-time ms; 0: none was granted in this boot of the machine. */
  untilMs(): number;
  /** Never earlier than it was. Throws where the file cannot be written: then the lease ends. */
  renew(untilMs: number): void;
}

/** `directory` must be there; `bootId`: of this boot, whose clock the lease is by. */
export function openLease(directory: string, bootId: string): LeaseFile {
  const path = join(directory, leaseFile);
  const untilMs = () => {
    let text: string;
    try {
      text = readFileSync(path, 'utf8');
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return 0;
      throw error;
    }
    const [until, boot] = text.trim().split(' ');
    return boot === bootId ? Number(until) || 0 : 0;
  };
  return {
    path,
    untilMs,
    renew(until) {
      if (until <= untilMs()) return;
      // In one step: half of one number and half of another would be a lease that nobody granted.
      writeFileSync(`${path}.next`, `${Math.floor(until)} ${bootId}\n`, { mode: 0o600 });
      renameSync(`${path}.next`, path);
    },
  };
}
