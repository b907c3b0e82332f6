/**
 * Nodes that go down again and again: what is remembered of it, and for how long other nodes are preferred for new tasks. Nothing is moved
 * away for it. Pure; all instants by the wall clock, in ms.
 *
 *   steady ──down──▶ once ──back──▶ (first time: as if nothing had been) ──calm──▶ steady
 *                     └─down again──▶ back: passed over for d, then 2d, 4d … 10 min ──calm──▶ steady
 */
import type { Flapping, Node } from '#proto/model/node.ts';

/** A node is passed over for so long at most. */
const longestMs = 600_000;
/** One that stays for so long, after that, is as good as any. */
export const calmMs = 600_000;

/** How long a node is passed over that is back after so many verdicts. `dampingMs`: ClusterConfig.flapDampingMs. */
export function passedOverMs(verdicts: number, dampingMs: number): number {
  return verdicts < 2 ? 0 : Math.min(dampingMs * 2 ** (verdicts - 2), longestMs);
}

/** What the record is to hold of it, where the node is to be in `state` from now on; the same object where nothing changes. */
export function nextFlapping(node: Node, state: Node['state'], now: number, dampingMs: number): Flapping | undefined {
  const { flapping } = node;
  if (dampingMs === 0) return undefined;
  if (state === 'down') {
    if (node.state === 'down') return flapping;
    return { verdicts: (flapping?.verdicts ?? 0) + 1, sinceMs: flapping?.sinceMs ?? now, untilMs: 0 };
  }
  if (!flapping) return undefined;
  const ms = passedOverMs(flapping.verdicts, dampingMs);
  if (node.state === 'down') return { ...flapping, untilMs: ms === 0 ? 0 : now + ms };
  if (now >= calmAtMs(node, flapping, dampingMs)) return undefined;
  if (flapping.untilMs === 0) return flapping;
  if (flapping.untilMs <= now) return { ...flapping, untilMs: 0 };
  // The clock was set back, or the setting made less.
  return flapping.untilMs > now + ms ? { ...flapping, untilMs: now + ms } : flapping;
}

/** When the record changes although nothing happens to the node; Infinity: never. */
export function flappingWakeAtMs(node: Node, dampingMs: number): number {
  const { flapping, state } = node;
  if (!flapping || state === 'down') return Number.POSITIVE_INFINITY;
  return flapping.untilMs > 0 ? flapping.untilMs : calmAtMs(node, flapping, dampingMs);
}

/** Why other nodes are preferred to it; empty: none is. */
export function flappingWords({ flapping }: Node): string {
  if (!flapping || flapping.untilMs === 0) return '';
  const { verdicts, sinceMs, untilMs } = flapping;
  return `flapping: down ${verdicts} times since ${clock(sinceMs)}, new tasks go to other nodes until ${clock(untilMs)} (UTC)`;
}

function calmAtMs({ stateAtMs }: Node, { verdicts }: Flapping, dampingMs: number): number {
  return stateAtMs + passedOverMs(verdicts, dampingMs) + calmMs;
}

function clock(ms: number): string {
  return new Date(ms).toISOString().slice(11, 19);
}
