/** Subnets, whatever joins, asks, runs and leaves: never two owners, never a host's own network, never taken from under tasks. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { decideNodes } from '#control-plane/reconcilers/decide-nodes.ts';
import { adviseSubnets, type SubnetAdvice } from '#control-plane/reconcilers/subnets.ts';
import { keyOf } from '#control-plane/store/snapshot.ts';
import { type Cidr, contains, nthAddress, overlaps, parseCidr } from '#net/plan/cidr.ts';

import { nodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { isTerminal } from '#proto/model/task.ts';
import { aCluster, aNetwork, aNode, aTask, idOf } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const network = '10.192.0.0/21';
const part = fc.constantFrom(0, 1, 1, 1, 2, 2, 3, 5, 9);
const subnet = fc
  .tuple(part, fc.constantFrom(0, 16, 128), fc.constantFrom(16, 22, 24, 24, 25, 28))
  .map(([n, low, prefix]) => {
    const size = 2 ** (32 - prefix);
    const base = Math.floor((n * 256 + low) / size) * size;
    return `10.192.${base >> 8}.${base & 255}/${prefix}`;
  });
const foreign = fc.array(
  fc.oneof(
    { weight: 6, arbitrary: subnet },
    fc.constantFrom('10.0.0.0/8', '10.192.0.0/11', '10.224.0.0/16', '172.17.0.0/16'),
  ),
  { maxLength: 2 },
);
const facts = fc.record({
  pinnedSubnet: fc.oneof(fc.constant(''), subnet),
  foreignNetworks: foreign,
});
const host = fc.integer({ min: 0, max: 3 });
const action = fc.oneof(
  fc.record({ kind: fc.constant('join' as const), host, facts }),
  fc.record({ kind: fc.constant('describe' as const), host, facts }),
  fc.record({ kind: fc.constant('run' as const), host }),
  fc.record({ kind: fc.constant('stop' as const), host }),
  fc.record({ kind: fc.constant('remove' as const), host }),
  fc.record({ kind: fc.constant('network' as const), subnet }),
  fc.record({ kind: fc.constant('wait' as const) }),
);

/** All nodes are heard: health has no part in this. */
const hearing = {
  now: 10_000,
  leaderSinceMs: 0,
  laggedUntilMs: 0,
  deafUntilMs: 0,
  lastArrivalMs: Number.NEGATIVE_INFINITY,
  lastBeatAt: () => 10_000,
  hungUpAt: () => undefined,
  agentOf: () => undefined,
  clockOf: () => undefined,
  wrongClocks: [],
  kernelOf: () => ({ answeredAtMs: undefined, round: undefined }),
  appliedRevision: () => undefined,
  withheld: new Set<never>(),
};

const blockOf = ({ base, prefix }: Cidr): Cidr =>
  prefix <= 24 ? { base, prefix } : { base: base - (base % 256), prefix: 24 };
const covers = (text: string) => overlaps(parseCidr(text), parseCidr(network)) && parseCidr(text).prefix <= 21;
const meets = (a: string, b: string) => overlaps(parseCidr(a), parseCidr(b));

const byId = (advice: ReadonlyMap<Node, SubnetAdvice>) => [...advice].map(([{ id }, told]) => [id, told]);

class World {
  readonly cluster = new DecidedCluster([]);
  #made = 0;

  constructor() {
    this.cluster.put('cluster', aCluster({ network, vipNetwork: '10.224.0.0/14' }));
  }

  nodes(): Node[] {
    return [...this.cluster.snapshot.all('node')];
  }

  node(index: number): Node | undefined {
    return this.nodes().find(({ name }) => name === `h${index}`);
  }

  do(one: typeof action extends fc.Arbitrary<infer T> ? T : never): void {
    const { cluster } = this;
    if (one.kind === 'network') {
      cluster.put('network', aNetwork(`n${this.#made++}`, [one.subnet]));
    } else if (one.kind === 'wait') cluster.now += 61_000;
    else {
      const node = this.node(one.host);
      // Who joins again after it was removed is another node.
      const id = nodeId(idOf(`h${one.host}x${this.#made++}x`));
      if (one.kind === 'join' && !node)
        cluster.put('node', aNode(`h${one.host}`, { id, subnet: '', state: 'unknown', ...one.facts }));
      if (!node) return;
      if (one.kind === 'describe') cluster.put('node', { ...node, ...one.facts });
      if (one.kind === 'run' && node.subnet !== '') {
        const address = nthAddress(node.subnet, 2 + (this.#made % 8));
        cluster.put('task', aTask(`t${this.#made++}`, { nodeId: node.id, state: 'running', address }));
      }
      if (one.kind === 'stop') {
        for (const task of [...cluster.snapshot.tasksOnNode(node.id)])
          if (!isTerminal(task.state)) cluster.report(task, { state: 'shutdown' });
      }
      if (one.kind === 'remove')
        cluster.commit([{ table: 'node', key: keyOf('node', node), value: undefined, expect: 0 }]);
    }
  }

  decide(): number {
    const { snapshot, now, books } = this.cluster;
    const subnets = books.subnets(snapshot, now);
    // What the books remember of the last look is what a look would say.
    expect(byId(subnets.advice)).toEqual(byId(adviseSubnets(snapshot, now)));
    const { changes } = decideNodes(snapshot, hearing, now, subnets);
    this.cluster.commit(changes);
    return changes.length;
  }

  /** What was given just now. */
  check(before: ReadonlyMap<string, string>): void {
    const nodes = this.nodes();
    const held = nodes.filter((node) => node.subnet !== '');
    for (const [index, node] of held.entries()) {
      const range = parseCidr(node.subnet);
      expect(contains(parseCidr(network), range.base) && range.prefix >= 21).toBe(true);
      for (const other of held.slice(index + 1)) {
        const meet = overlaps(blockOf(range), blockOf(parseCidr(other.subnet)));
        expect(meet, `${node.name} ${node.subnet} and ${other.name} ${other.subnet}`).toBe(false);
      }
      for (const task of this.cluster.snapshot.tasksOnNode(node.id))
        if (!isTerminal(task.state)) expect(node.subnet, 'taken from under a task').toBe(before.get(node.id));
      if (node.subnet === before.get(node.id)) continue;
      for (const { name, foreignNetworks } of nodes) {
        for (const text of foreignNetworks) {
          const isTold = covers(text) && (name !== node.name || node.pinnedSubnet === node.subnet);
          expect(isTold || !meets(text, node.subnet), `${node.subnet} given, ${name} has ${text}`).toBe(true);
        }
      }
      for (const { spec } of this.cluster.snapshot.all('network'))
        for (const one of spec.subnets) expect(meets(one.subnet, node.subnet)).toBe(false);
    }
    for (const node of nodes)
      if (node.pinnedSubnet !== '' && node.pinnedSubnet !== node.subnet)
        expect(node.message).toContain(node.pinnedSubnet);
  }
}

it('never overlap, are never taken from under tasks, and come to rest', () => {
  fc.assert(
    fc.property(fc.array(action, { minLength: 20, maxLength: 60, size: 'max' }), (actions) => {
      const world = new World();
      for (const one of actions) {
        world.do(one);
        for (let round = 0; ; round++) {
          expect(round).toBeLessThan(10);
          const before = new Map(world.nodes().map(({ id, subnet }) => [id as string, subnet]));
          if (world.decide() === 0) break;
          world.check(before);
        }
      }
    }),
    { numRuns: 300 },
  );
});

it('of machines that join at once are all given, disjoint, and kept when their agents start again', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { minLength: 5, maxLength: 7 }), (hosts) => {
      const world = new World();
      const unasked = { pinnedSubnet: '', foreignNetworks: [] };
      for (const index of hosts) world.do({ kind: 'join', host: index, facts: unasked });
      world.decide();
      const given = new Map(world.nodes().map(({ name, subnet }) => [name, subnet]));
      expect(new Set(given.values()).size).toBe(hosts.length);
      world.check(new Map());
      for (const node of world.nodes()) world.cluster.put('node', { ...node, bootId: 'boot-2' });
      expect(world.decide()).toBe(0);
    }),
    { numRuns: 30 },
  );
});
