/** Ends the watchdog of a run directory, whatever state it is in: for who takes its place, and for the node that is reset. */
import { readFileSync, rmSync } from 'node:fs';
import { procStat } from '../proc-stat.ts';
import { watchdogPidFile, watchdogSocket } from './protocol.ts';

/** The process that names itself in `run`; undefined: there is none, or it has ended. */
export function watchdogOf(run: string): number | undefined {
  let text: string;
  try {
    text = readFileSync(watchdogPidFile(run), 'utf8');
  } catch {
    return undefined; // None was ever started here.
  }
  const [pid = 0, startTicks = 0] = text.trim().split(' ').map(Number);
  return pid > 0 && procStat(pid)?.startTicks === startTicks ? pid : undefined;
}

/** True when there was one. */
export function dismissWatchdog(run: string): boolean {
  const pid = watchdogOf(run);
  if (pid !== undefined) process.kill(pid, 'SIGKILL');
  for (const file of [watchdogSocket(run), watchdogPidFile(run)]) rmSync(file, { force: true });
  return pid !== undefined;
}
