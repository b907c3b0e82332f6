/** Everything about nodes: who is down, whose lease is over, and which subnet is whose. */

import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { defaultAgentAwayLimitMs, defaultFlapDampingMs } from '#proto/model/cluster.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { adviseFence, type Leases } from './fence.ts';
import { flappingWakeAtMs, nextFlapping } from './flapping.ts';
import { type Hearing, judge } from './node-health.ts';
import { adviseSubnets, messageOf, type SubnetAdvice } from './subnets.ts';

export interface NodesDecision {
  readonly changes: readonly Change[];
  /** As in HealthAdvice. */
  readonly suspects: readonly Node[];
  readonly deaf: boolean;
  /** Monotonic clock ms; Infinity: never. */
  readonly wakeAtMs: number;
}

/** What `adviseSubnets` says of a snapshot. */
export interface Subnets {
  readonly advice: ReadonlyMap<Node, SubnetAdvice>;
  /** All records are as advised: only those that change for another reason are to be looked at. */
  readonly taken: boolean;
}

/**
 * `now`: wall clock ms, for `stateAtMs`; `hearing` is in monotonic time. For their silence all nodes are looked at, for all else those alone that
 * something has happened to, or is to.
 */
export function decideNodes(
  snapshot: Snapshot,
  hearing: Hearing & Leases,
  now: number,
  subnets: Subnets = { advice: adviseSubnets(snapshot, now), taken: false },
): NodesDecision {
  const changed = new Map<NodeId, Node>();
  const { verdicts, suspects, lapsing, probed, deaf, ...judged } = judge(
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
  for (const { node, answersProbes } of probed)
    changed.set(node.id, { ...(changed.get(node.id) ?? node), answersProbes: answersProbes || undefined });
  const fencedAtMs = takeFences(snapshot, changed, lapsing, hearing);
  const flappingAtMs = takeFlapping(snapshot, changed, now);
  takeClocks(snapshot, changed, hearing);
  takeAdvice(snapshot, changed, subnets);
  const changes = [...changed.values()].map((value): Change => {
    return { table: 'node', key: value.id, value, expect: snapshot.get('node', value.id)?.modRevision ?? 0 };
  });
  return { changes, suspects, deaf, wakeAtMs: Math.min(judged.wakeAtMs, fencedAtMs, hearing.now + flappingAtMs - now) };
}

/** Whose lease is over, and who holds one again; when the next one of `lapsing` is over. */
function takeFences(snapshot: Snapshot, changed: Map<NodeId, Node>, lapsing: readonly Node[], leases: Leases): number {
  let wakeAtMs = Number.POSITIVE_INFINITY;
  const fenced = [...snapshot.fencedNodes()].map(({ id }) => id);
  for (const id of new Set([...lapsing.map((node) => node.id), ...fenced, ...leases.withheld])) {
    const record = snapshot.get('node', id);
    if (!record) continue;
    const { value: node, modRevision } = record;
    const advice = adviseFence(node, modRevision, leases);
    if (advice.fenced !== undefined) changed.set(id, { ...(changed.get(id) ?? node), fenced: advice.fenced });
    wakeAtMs = Math.min(wakeAtMs, advice.wakeAtMs);
  }
  return wakeAtMs;
}

/** Who goes down again and again; when that changes by itself, by the wall clock. */
function takeFlapping(snapshot: Snapshot, changed: Map<NodeId, Node>, now: number): number {
  const dampingMs = snapshot.cluster?.flapDampingMs ?? defaultFlapDampingMs;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  for (const node of concerned(snapshot, changed)) {
    const next = changed.get(node.id) ?? node;
    const flapping = nextFlapping(node, next.state, now, dampingMs);
    if (flapping !== node.flapping) changed.set(node.id, { ...next, flapping });
    wakeAtMs = Math.min(wakeAtMs, flappingWakeAtMs({ ...next, flapping }, dampingMs));
  }
  return wakeAtMs;
}

/** Whose clock is wrong, and whose is right again. Who has not told its time yet stays as it is. */
function takeClocks(snapshot: Snapshot, changed: Map<NodeId, Node>, { clockOf, wrongClocks }: Hearing): void {
  const before = [...snapshot.wrongClockNodes()].map(({ id }) => id);
  for (const id of new Set([...wrongClocks, ...before])) {
    const node = changed.get(id) ?? snapshot.node(id);
    if (!node) continue;
    const said = clockOf(node);
    if (said === undefined || said === (node.clock ?? '')) continue;
    changed.set(id, { ...node, clock: said === '' ? undefined : said });
  }
}

/** Subnets, and what is wrong with them and with who has them, where nothing worse is. */
function takeAdvice(snapshot: Snapshot, changed: Map<NodeId, Node>, { advice, taken }: Subnets): void {
  for (const record of taken ? concerned(snapshot, changed) : advice.keys()) {
    const told = advice.get(record);
    if (!told) continue;
    const node = changed.get(record.id) ?? record;
    const message = messageOf(node, told);
    if (node.subnet !== told.subnet || node.message !== message)
      changed.set(node.id, { ...node, subnet: told.subnet, message });
  }
}

/** The records of those that change, and of those that were down of late. */
function concerned(snapshot: Snapshot, changed: ReadonlyMap<NodeId, Node>): ReadonlySet<Node> {
  const records = [...changed.keys()].flatMap((id) => snapshot.node(id) ?? []);
  return new Set([...records, ...snapshot.flappingNodes()]);
}
