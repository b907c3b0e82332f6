/** Everything about nodes: who is down, and which subnet is whose. */

import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { subnetFor } from './addresses.ts';
import { type Hearing, judge } from './node-health.ts';

export interface NodesDecision {
  readonly changes: readonly Change[];
  /** As in HealthAdvice. */
  readonly deaf: boolean;
  /** Monotonic clock ms; Infinity: never. */
  readonly wakeAtMs: number;
}

/** `now`: wall clock ms, for `stateAtMs`; `hearing` is in monotonic time. */
export function decideNodes(snapshot: Snapshot, hearing: Hearing, now: number): NodesDecision {
  const changed = new Map<NodeId, Node>();
  const { verdicts, deaf, wakeAtMs } = judge(snapshot.all('node'), hearing);
  for (const { node, state, message } of verdicts) {
    changed.set(node.id, { ...node, state, message, stateAtMs: now });
  }
  giveSubnets(snapshot, changed);
  const changes = [...changed.values()].map((value): Change => {
    return { table: 'node', key: value.id, value, expect: snapshot.get('node', value.id)?.modRevision ?? 0 };
  });
  return { changes, deaf, wakeAtMs };
}

function giveSubnets(snapshot: Snapshot, changed: Map<NodeId, Node>): void {
  const without = [...snapshot.all('node')].filter((node) => node.subnet === '');
  if (without.length === 0) return;
  const given: string[] = [];
  for (const node of without.sort((a, b) => (a.name < b.name ? -1 : 1))) {
    const subnet = subnetFor(snapshot, given);
    if (subnet === undefined) return;
    given.push(subnet);
    changed.set(node.id, { ...(changed.get(node.id) ?? node), subnet });
  }
}
