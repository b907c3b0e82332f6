/** What /proc says of processes: whether one is still the one that was known, and what it has done. */
import { closeSync, readFileSync, readlinkSync } from 'node:fs';
import { procStat } from '../proc-stat.ts';
import { pidfdOpen } from './libc.ts';

/** When the process began, in clock ticks since boot; undefined where there is none, or it is a zombie. */
export function startTicksOf(pid: number): number | undefined {
  const stat = procStat(pid);
  return stat === undefined || stat.state === 'Z' || stat.state === 'X' ? undefined : stat.startTicks;
}

/** A pidfd of that very process; undefined where it is gone, whoever has its number now. */
export function verified(pid: number, startTicks: number): number | undefined {
  if (pid <= 0) return undefined;
  const fd = pidfdOpen(pid);
  if (fd === undefined) return undefined;
  // Looked at after opening: were it another process, it would have begun later.
  if (startTicksOf(pid) === startTicks) return fd;
  closeSync(fd);
  return undefined;
}

/** The command line of a process; empty where there is none. */
export function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}

/** What the network namespace of a process has carried, without loopback; nothing where that is ours, the host's. */
export function networkBytes(pid: number): {
  readonly networkReceivedBytes: number;
  readonly networkSentBytes: number;
} {
  let received = 0;
  let sent = 0;
  let text = '';
  try {
    const namespace = readlinkSync(`/proc/${pid}/ns/net`);
    if (namespace !== readlinkSync('/proc/self/ns/net')) text = readFileSync(`/proc/${pid}/net/dev`, 'utf8');
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ESRCH' && code !== 'EINVAL') throw error;
  }
  for (const line of text.split('\n').slice(2)) {
    const [name, counters = ''] = line.split(':');
    if (!counters || name?.trim() === 'lo') continue;
    const columns = counters.trim().split(/\s+/).map(Number);
    received += columns[0] ?? 0;
    sent += columns[8] ?? 0;
  }
  return { networkReceivedBytes: received, networkSentBytes: sent };
}
