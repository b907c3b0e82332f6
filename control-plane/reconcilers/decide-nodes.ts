/** Everything about nodes: who is down, whose lease is over, and which subnet is whose. */

import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { defaultAgentAwayLimitMs, defaultFlapDampingMs } from '#proto/model/cluster.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { adviseFence, type Leases } from './fence.ts';
import { flappingWakeAtMs, flappingWords, nextFlapping } from './flapping.ts';
import { type Hearing, judge } from './node-health.ts';
import { adviseSubnets, type SubnetAdvice } from './subnets.ts';

export interface NodesDecision {
  readonly changes: readonly Change[];
  /** As in HealthAdvice. */
  readonly suspects: readonly Node[];
  readonly deaf: boolean;
  /** Monotonic clock ms; Infinity: never. */
  readonly wakeAtMs: number;
}

/** `now`: wall clock ms, for `stateAtMs`; `hearing` is in monotonic time; `subnets`: `adviseSubnets` of that snapshot. */
export function decideNodes(
  snapshot: Snapshot,
  hearing: Hearing & Leases,
  now: number,
  subnets: ReadonlyMap<Node, SubnetAdvice> = adviseSubnets(snapshot, now),
): NodesDecision {
  const changed = new Map<NodeId, Node>();
  const { verdicts, suspects, deaf, ...judged } = judge(
    snapshot.all('node'),
    hearing,
    (snapshot.cluster?.agentAwayLimitMs ?? defaultAgentAwayLimitMs) || Number.POSITIVE_INFINITY,
  );
  for (const { node, state, message, away } of verdicts) {
    const unaccounted = node.unaccounted || state === 'down';
    const stateAtMs = state === node.state ? node.stateAtMs : now;
    const restored = state === 'ready' ? undefined : node.restored;
    changed.set(node.id, { ...node, state, message, away, stateAtMs, unaccounted, restored });
  }
  const fencedAtMs = takeFences(snapshot, changed, hearing);
  const flappingAtMs = takeFlapping(snapshot, changed, now);
  takeAdvice(snapshot, changed, subnets);
  const changes = [...changed.values()].map((value): Change => {
    return { table: 'node', key: value.id, value, expect: snapshot.get('node', value.id)?.modRevision ?? 0 };
  });
  return { changes, suspects, deaf, wakeAtMs: Math.min(judged.wakeAtMs, fencedAtMs, hearing.now + flappingAtMs - now) };
}

/** Whose lease is over, and who holds one again; when the next one is over. */
function takeFences(snapshot: Snapshot, changed: Map<NodeId, Node>, leases: Leases): number {
  let wakeAtMs = Number.POSITIVE_INFINITY;
  for (const node of snapshot.all('node')) {
    const { modRevision } = snapshot.get('node', node.id)!;
    const advice = adviseFence(node, modRevision, leases);
    if (advice.fenced !== undefined) changed.set(node.id, { ...(changed.get(node.id) ?? node), fenced: advice.fenced });
    wakeAtMs = Math.min(wakeAtMs, advice.wakeAtMs);
  }
  return wakeAtMs;
}

/** Who goes down again and again; when that changes by itself, by the wall clock. */
function takeFlapping(snapshot: Snapshot, changed: Map<NodeId, Node>, now: number): number {
  const dampingMs = snapshot.cluster?.flapDampingMs ?? defaultFlapDampingMs;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  for (const node of snapshot.all('node')) {
    const next = changed.get(node.id) ?? node;
    const flapping = nextFlapping(node, next.state, now, dampingMs);
    if (flapping !== node.flapping) changed.set(node.id, { ...next, flapping });
    wakeAtMs = Math.min(wakeAtMs, flappingWakeAtMs({ ...next, flapping }, dampingMs));
  }
  return wakeAtMs;
}

/** Subnets, and what is wrong with them and with who has them, where nothing worse is. */
function takeAdvice(snapshot: Snapshot, changed: Map<NodeId, Node>, subnets: ReadonlyMap<Node, SubnetAdvice>): void {
  for (const [{ id }, { subnet, message }] of subnets) {
    const node = changed.get(id) ?? (snapshot.node(id) as Node);
    const warnings = [message, flappingWords(node)].filter(Boolean).join('; ');
    const said = node.state === 'ready' ? node.away || warnings : node.message;
    if (node.subnet !== subnet || node.message !== said) changed.set(id, { ...node, subnet, message: said });
  }
}
