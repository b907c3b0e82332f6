/** When a node's lease is surely over, so that none of the singletons it was given runs any more. Pure; the node's side is node-agent/watchdog/lease.ts. */
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';

/** How long after a beat was sent the singletons of its node may run, where the beat was acknowledged with a lease: a control plane that is started again is back by then. */
export const leaseMs = 3_000;
/** A leader grants leases while the store has confirmed its leadership within so long: its successor counts on it. */
export const confirmedMs = 1_000;
/** What clocks of two machines may drift apart in a lease, and a killed process may take to be gone, many times over. */
export const marginMs = 1_000;

export interface Leases {
  /** Monotonic clock, ms; as all instants here. */
  readonly now: number;
  readonly leaderSinceMs: number;
  lastBeatAt(node: Node): number | undefined;
  /** The revision that its agent has said, in its session now, to hold; undefined: it has no session. */
  appliedRevision(node: Node): number | undefined;
  /** Nodes that this leader has begun to write down as fenced, and grants nothing since. */
  readonly withheld: ReadonlySet<NodeId>;
}

/** Of all leases that this leader, or one before it, can have granted the node. */
export function leaseOverAtMs(node: Node, { leaderSinceMs, lastBeatAt }: Omit<Leases, 'now'>): number {
  return Math.max(lastBeatAt(node) ?? 0, leaderSinceMs + confirmedMs) + leaseMs + marginMs;
}

export interface FenceAdvice {
  /** undefined: the record stays as it is. The value it has: it is to be written all the same. */
  readonly fenced: boolean | undefined;
  /** When the lease is over if nothing more is heard; Infinity: it is already, or there was none. */
  readonly wakeAtMs: number;
}

/**
 * Whether the node is fenced. What was fenced stays so until its agent holds a state of the cluster in which it was: then it knows
 * which of its singletons others have by now. `modRevision`: of the node's record.
 */
export function adviseFence(node: Node, modRevision: number, leases: Leases): FenceAdvice {
  const overAtMs = leaseOverAtMs(node, leases);
  if (leases.now < overAtMs) {
    if (!node.fenced) return { fenced: leases.withheld.has(node.id) ? false : undefined, wakeAtMs: overAtMs };
    const heard = leases.lastBeatAt(node) !== undefined;
    const knows = heard && (leases.appliedRevision(node) ?? -1) >= modRevision;
    return { fenced: knows ? false : undefined, wakeAtMs: Number.POSITIVE_INFINITY };
  }
  // One that has not described itself has had no task.
  const had = !node.fenced && node.bootId !== '';
  return { fenced: had ? true : undefined, wakeAtMs: Number.POSITIVE_INFINITY };
}
