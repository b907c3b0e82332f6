/** A process as /proc/PID/stat tells of it. Light: the watchdog imports it too. */
import { readFileSync } from 'node:fs';

export interface ProcStat {
  /** One letter of proc(5): T and t stand still, Z and X have ended. */
  readonly state: string;
  /** When it began, in clock ticks since boot: with the pid it names one process, and no later one. */
  readonly startTicks: number;
}

/** undefined: there is no such process. */
export function procStat(pid: number): ProcStat | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return { state: fields[0]!, startTicks: Number(fields[19]) };
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ESRCH') return undefined;
    throw error;
  }
}
