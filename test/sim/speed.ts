/** How many times faster than real time a cluster of 3 control planes and 20 agents is simulated, on one core. */
import { cpuUsage } from 'node:process';
import type { Plot } from './plot.ts';
import { tell } from './story.ts';

const size = { hosts: 20, replicas: 3 };

interface Part {
  simulatedMs: number;
  /** Of this process, all its threads: what others do on the machine meanwhile does not count. */
  cpuMs: number;
}

/** Tells `count` stories from the seed `first` on, each once, and says how long that took. */
export async function speed(plot: Plot, first: number, count: number): Promise<string> {
  const parts = { trouble: { simulatedMs: 0, cpuMs: 0 }, quiet: { simulatedMs: 0, cpuMs: 0 } };
  for (let seed = first; seed < first + count; seed++) {
    // It begins with nothing but a cluster that comes up, and ends when all has come to rest.
    let part: Part = parts.quiet;
    let sinceMs = cpuMs();
    const enter = (next: Part) => {
      const now = cpuMs();
      part.cpuMs += now - sinceMs;
      [part, sinceMs] = [next, now];
    };
    const { lastedMs, troubledMs } = await tell(seed, { plot, size, entered: (name) => enter(parts[name]) });
    enter(parts.quiet);
    parts.trouble.simulatedMs += troubledMs;
    parts.quiet.simulatedMs += lastedMs - troubledMs;
  }
  const { trouble, quiet } = parts;
  const all = { simulatedMs: trouble.simulatedMs + quiet.simulatedMs, cpuMs: trouble.cpuMs + quiet.cpuMs };
  return (
    `${count} stories with ${size.replicas} control planes and ${size.hosts} agents: ${(all.simulatedMs / 3_600_000).toFixed(2)} simulated hours ` +
    `in ${(all.cpuMs / 1_000).toFixed(1)} s of one core: ${timesOf(all)} (${timesOf(trouble)} with faults on, ${timesOf(quiet)} without)`
  );
}

function cpuMs(): number {
  const { user, system } = cpuUsage();
  return (user + system) / 1_000;
}

function timesOf({ simulatedMs, cpuMs }: Part): string {
  return `${(simulatedMs / cpuMs).toFixed(0)}x`;
}
