/** What decides about nodes looks closer at few of them: whatever they are, it says what looking at every one would. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decideNodes } from '#control-plane/reconcilers/decide-nodes.ts';
import { adviseFence, type Leases } from '#control-plane/reconcilers/fence.ts';
import { flappingWakeAtMs, nextFlapping } from '#control-plane/reconcilers/flapping.ts';
import { type Hearing, judge } from '#control-plane/reconcilers/node-health.ts';
import { adviseSubnets, messageOf } from '#control-plane/reconcilers/subnets.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { aCluster, aNode } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const awayLimitMs = 30_000;
const dampingMs = 10_000;
const began = 1e12;

/** What its leader knows of a node; instants in monotonic ms before now. */
interface Heard {
  readonly beatMs: number | undefined;
  readonly hungUp: boolean;
  readonly ill: boolean;
  readonly kernelMs: number | undefined;
  readonly applied: number | undefined;
  readonly withheld: boolean;
  readonly clock: string | undefined;
}

const record = fc.record({
  state: fc.constantFrom<Node['state']>('ready', 'ready', 'down', 'unknown'),
  bootId: fc.constantFrom('boot-1', 'boot-1', ''),
  fenced: fc.constantFrom(false, false, true),
  away: fc.constantFrom('', '', 'its agent hangs'),
  message: fc.constantFrom('', '', 'said before'),
  clock: fc.constantFrom(undefined, undefined, 'its clock is wrong'),
  stateAtMs: fc.integer({ min: began - 900_000, max: began }),
  flapping: fc.option(
    fc.record({
      verdicts: fc.integer({ min: 1, max: 5 }),
      sinceMs: fc.constant(began - 1_000_000),
      untilMs: fc.constantFrom(0, began - 1, began + 5_000, began + 900_000),
    }),
    { nil: undefined, freq: 2 },
  ),
});
const heard: fc.Arbitrary<Heard> = fc.record({
  beatMs: fc.option(fc.constantFrom(10, 150, 599, 600, 800, 1_500, 2_000, 3_499, 3_500, 4_500, 9_000), {
    nil: undefined,
  }),
  hungUp: fc.constantFrom(false, false, true),
  ill: fc.constantFrom(false, false, true),
  kernelMs: fc.option(fc.constantFrom(100, 1_000, 4_000), { nil: undefined }),
  applied: fc.constantFrom(undefined, 1, 1_000),
  withheld: fc.constantFrom(false, false, true),
  clock: fc.constantFrom(undefined, '', '', 'its clock is wrong', 'its clock is wrong in another way'),
});
const node = fc.tuple(record, heard);

function clusterOf(nodes: readonly (readonly [Partial<Node>, Heard])[], leaderSinceMs: number, now: number) {
  const all = nodes.map(([over], index) =>
    aNode(`h${index}`, { subnet: `10.192.${index + 1}.0/24`, address: `10.90.0.${index + 1}`, ...over }),
  );
  const cluster = new DecidedCluster(all);
  cluster.put('cluster', aCluster({ agentAwayLimitMs: awayLimitMs, flapDampingMs: dampingMs }));
  const told = new Map(all.map(({ id }, index) => [id, nodes[index]![1]]));
  const of = ({ id }: { readonly id: NodeId }) => told.get(id)!;
  const ago = (ms: number | undefined) => (ms === undefined ? undefined : now - ms);
  let looks = 0;
  const hearing: Hearing & Leases = {
    now,
    leaderSinceMs,
    laggedUntilMs: 0,
    deafUntilMs: 0,
    lastArrivalMs: now - 1_000,
    lastBeatAt: (one) => {
      looks++;
      return ago(of(one).beatMs);
    },
    hungUpAt: (one) => (of(one).hungUp ? ago(0) : undefined),
    kernelOf: (one) => ({ answeredAtMs: ago(of(one).kernelMs), round: undefined }),
    agentOf: (one) => ({ condition: of(one).ill ? 'stalled' : 'running', sinceMs: now - 5_000 }),
    clockOf: (one) => of(one).clock,
    wrongClocks: all.flatMap(({ id }) => (told.get(id)!.clock ? [id] : [])),
    appliedRevision: (one) => of(one).applied,
    withheld: new Set(all.flatMap(({ id }) => (told.get(id)!.withheld ? [id] : []))),
  };
  return { cluster, hearing, looks: () => looks };
}

/** All rules for every node. */
function decidedOneByOne({ cluster, hearing }: ReturnType<typeof clusterOf>): { nodes: Node[]; wakeAtMs: number } {
  const { snapshot } = cluster;
  const judged = judge(snapshot.all('node'), hearing, awayLimitMs);
  const verdicts = new Map(judged.verdicts.map((verdict) => [verdict.node.id, verdict]));
  const advice = adviseSubnets(snapshot, began);
  let { wakeAtMs } = judged;
  const nodes = [...snapshot.all('node')].flatMap((before): Node[] => {
    const verdict = verdicts.get(before.id);
    const { state, message, away } = verdict ?? before;
    const lost = verdict !== undefined && state === 'down';
    let next: Node = { ...before, state, message, away, unaccounted: before.unaccounted || lost };
    if (state !== before.state) next = { ...next, stateAtMs: began };
    const fence = adviseFence(before, snapshot.get('node', before.id)!.modRevision, hearing);
    if (fence.fenced !== undefined) next = { ...next, fenced: fence.fenced };
    next = { ...next, flapping: nextFlapping(before, state, began, dampingMs) };
    wakeAtMs = Math.min(wakeAtMs, fence.wakeAtMs, hearing.now + flappingWakeAtMs(next, dampingMs) - began);
    const clock = hearing.clockOf(before);
    if (clock !== undefined && clock !== (before.clock ?? '')) next = { ...next, clock: clock || undefined };
    const told = advice.get(before);
    if (told) next = { ...next, subnet: told.subnet, message: messageOf(next, told) };
    const written = verdict !== undefined || fence.fenced !== undefined;
    const differs =
      next.flapping !== before.flapping ||
      next.clock !== before.clock ||
      next.subnet !== before.subnet ||
      next.message !== before.message;
    return written || differs ? [next] : [];
  });
  return { nodes, wakeAtMs };
}

const sorted = (nodes: readonly Node[]) => nodes.toSorted((a, b) => (a.id < b.id ? -1 : 1));

describe('a look at the nodes', () => {
  it('decides what looking at every one of them would', () => {
    const leaders = fc.constantFrom(0, 46_000, 49_000);
    fc.assert(
      fc.property(fc.array(node, { minLength: 1, maxLength: 8 }), leaders, fc.boolean(), (nodes, since, remembers) => {
        const world = clusterOf(nodes, since, 50_000);
        const { snapshot, books } = world.cluster;
        const subnets = remembers ? books.subnets(snapshot, began) : undefined;
        const { changes, wakeAtMs } = decideNodes(snapshot, world.hearing, began, subnets);
        const wanted = decidedOneByOne(world);
        const decided = changes.map(({ value }) => ({ ...(value as Node) }));
        expect(sorted(decided)).toEqual(sorted(wanted.nodes));
        expect(wakeAtMs).toBe(wanted.wakeAtMs);
      }),
      { numRuns: 2_000 },
    );
  });

  it('asks of each whether it was heard, and no more of those that nothing has happened to', () => {
    const calm: Heard = {
      beatMs: 150,
      hungUp: false,
      ill: false,
      kernelMs: 100,
      applied: 1_000,
      withheld: false,
      clock: '',
    };
    const few: (readonly [Partial<Node>, Heard])[] = [
      [{}, { ...calm, beatMs: 3_400 }],
      [{ state: 'down', fenced: true }, calm],
      [{ flapping: { verdicts: 2, sinceMs: began - 9_000, untilMs: began + 9_000 } }, calm],
      [{}, { ...calm, withheld: true }],
      [{}, { ...calm, clock: 'its clock is wrong' }],
    ];
    const world = clusterOf([...few, ...Array.from({ length: 200 }, () => [{}, calm] as const)], 0, 50_000);
    const { snapshot, books } = world.cluster;
    world.cluster.commit(decideNodes(snapshot, world.hearing, began, books.subnets(snapshot, began)).changes);
    const before = world.looks();
    const subnets = books.subnets(snapshot, began);
    expect(subnets.taken).toBe(true);
    const reads = { get: 0, node: 0 };
    const counted = new Proxy(snapshot, {
      get(of, key) {
        if (key === 'get' || key === 'node') reads[key]++;
        const value = Reflect.get(of, key, of);
        return typeof value === 'function' ? value.bind(of) : value;
      },
    });
    decideNodes(counted, world.hearing, began, subnets);
    const all = 200 + few.length;
    expect(world.looks() - before).toBeLessThan(all + 3 * few.length);
    expect(reads.get + reads.node).toBeLessThan(6 * few.length);
  });
});
