/** How the agent is, as its watchdog sees it. Pure. */
import type { ProcStat } from '../proc-stat.ts';

/** `stalled`: its process runs, its main loop does not turn. `stopped`: somebody stopped the process (SIGSTOP, a debugger). */
export type AgentCondition = 'running' | 'stalled' | 'stopped' | 'gone';

/** How often the agent's main loop says that it turns; what it is later than this is its lag. */
export const loopPeriodMs = 100;
/** A main loop that has not turned for so long hangs. */
export const stalledMs = 1_000;

export interface AgentSeen {
  /** What /proc says of its pid now; undefined: nothing. */
  readonly stat: ProcStat | undefined;
  /** When the process began that said hello; another one has only its number. */
  readonly startTicks: number;
  /** It has a connection to the watchdog. */
  readonly connected: boolean;
  /** Since its main loop last said that it turns. */
  readonly sinceTurnMs: number;
}

export function conditionOf({ stat, startTicks, connected, sinceTurnMs }: AgentSeen): AgentCondition {
  if (!stat || stat.startTicks !== startTicks || stat.state === 'Z' || stat.state === 'X') return 'gone';
  if (stat.state === 'T' || stat.state === 't') return 'stopped';
  if (!connected) return 'gone';
  return sinceTurnMs > stalledMs ? 'stalled' : 'running';
}

export function loopLagMs(sinceTurnMs: number): number {
  return Math.max(0, Math.round(sinceTurnMs - loopPeriodMs));
}
