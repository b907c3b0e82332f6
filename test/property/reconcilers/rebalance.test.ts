/** Laws of rebalancing on generated clusters: it ends, keeps every rule, never makes anything more uneven, and a second time there is nothing to do. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { planRebalance } from '#control-plane/controllers/plan-rebalance.ts';
import { type Move, mostMovesOfSeat } from '#control-plane/reconcilers/rebalance.ts';
import { requestOf } from '#control-plane/scheduler/filters.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { Scheduler } from '#control-plane/scheduler/place.ts';
import { keyOf, LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { taskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { type Affinity, defaults, type Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aRevision, aService, aTask, aTemplate, idOf } from '#test/support/builders.ts';

const names = ['s0', 's1', 's2'] as const;
const affinity: fc.Arbitrary<Affinity> = fc.record({
  service: fc.constantFrom(...names.map((name) => `demo/${name}`)),
  scope: fc.constantFrom('node', 'node.labels.zone'),
  apart: fc.boolean(),
  preferred: fc.boolean(),
});
const service = fc.record({
  replicas: fc.integer({ min: 1, max: 12 }),
  cpuMillis: fc.constantFrom(0, 0, 300, 900),
  constrained: fc.boolean(),
  spread: fc.constantFrom<string[]>([], [], ['node.labels.zone']),
  maxReplicasPerNode: fc.constantFrom(0, 0, 3),
  strategy: fc.constantFrom('' as const, '' as const, 'binpack' as const),
  affinities: fc.oneof({ weight: 3, arbitrary: fc.constant<Affinity[]>([]) }, fc.array(affinity, { maxLength: 2 })),
  rebalance: fc.constantFrom('' as const, '' as const, '' as const, 'off' as const),
});
const cluster = fc.record({
  /** Zones of nodes; tasks begin on the first ones. */
  zones: fc.array(fc.constantFrom('a', 'b', ''), { minLength: 2, maxLength: 7 }),
  began: fc.integer({ min: 1, max: 4 }),
  services: fc.tuple(service, service, service),
  /** Where tasks are, from which the rest is drawn. */
  dice: fc.array(fc.nat(1_000), { minLength: 36, maxLength: 36 }),
});
type Made = typeof cluster extends fc.Arbitrary<infer T> ? T : never;

function make({ zones, began, services, dice }: Made): { snapshot: LiveSnapshot; services: Service[] } {
  const snapshot = new LiveSnapshot();
  const nodes = zones.map((zone, at) => aNode(`h${at}`, { labels: zone === '' ? {} : { zone } }));
  const made = services.map(({ replicas, cpuMillis, constrained, rebalance, affinities, ...placement }, at) => {
    const name = names[at]!;
    return aService(name, {
      replicas,
      rebalance,
      template: aTemplate({ reservations: { cpuMillis, memoryBytes: 0, pids: 0, generic: [] } }),
      placement: {
        ...defaults.placement,
        ...placement,
        constraints: constrained ? ['node.labels.zone != b'] : [],
        affinities: affinities.filter((one) => !(one.preferred && one.service === `demo/${name}`)),
      },
    });
  });
  for (const node of nodes) snapshot.apply('node', node.id, node, 1);
  let at = 0;
  for (const service of made) {
    snapshot.apply('service', service.id, service, 1);
    snapshot.apply('revision', keyOf('revision', aRevision(service)), aRevision(service), 1);
    for (let slot = 1; slot <= service.spec.replicas; slot++) {
      const node = nodes[dice[at++ % dice.length]! % Math.min(began, nodes.length)]!;
      const id = taskId(idOf(`${service.spec.name}t${slot}x`));
      const task = aTask('t', {
        id,
        serviceId: service.id,
        serviceName: service.spec.name,
        slot,
        nodeId: node.id,
        nodeName: node.name,
        reservations: service.spec.template.reservations,
      });
      snapshot.apply('task', id, task, 1);
    }
  }
  return { snapshot, services: made };
}

/** The cluster with a move done. */
function carryOut(snapshot: LiveSnapshot, { taskId, to, toName }: Move): void {
  snapshot.apply('task', taskId, { ...snapshot.task(taskId)!, nodeId: to, nodeName: toName }, 1);
}

function countsOf(tasks: Iterable<Task>, nodes: readonly Node[], of: (node: Node) => string): number[] {
  const counts = new Map(nodes.map((node) => [of(node), 0]));
  for (const { nodeId } of tasks) {
    const key = of(nodes.find(({ id }) => id === nodeId)!);
    counts.set(key, counts.get(key)! + 1);
  }
  return [...counts.values()];
}

const squares = (counts: readonly number[]) => counts.reduce((sum, count) => sum + count * count, 0);

describe('rebalancing', () => {
  it('ends, moves no task again and again, and finds nothing the second time', () => {
    fc.assert(
      fc.property(cluster, (made) => {
        const { snapshot, services } = make(made);
        const { moves, more } = planRebalance(snapshot, 0);
        expect(more).toBe(false);
        for (const { taskId } of moves)
          expect(moves.filter((move) => move.taskId === taskId).length).toBeLessThanOrEqual(mostMovesOfSeat);
        for (const move of moves) carryOut(snapshot, move);
        // Services that want what cannot be had together may follow each other; a pass ends that.
        const strategies = new Set(services.map(({ spec }) => spec.placement.strategy));
        const follow = services.some(({ spec }) => spec.placement.affinities.length > 0) || strategies.size > 1;
        if (!follow) expect(planRebalance(snapshot, 0).moves).toEqual([]);
      }),
      { numRuns: 1_000 },
    );
  });

  it('moves only to nodes that would take the task, and never one that is to stay', () => {
    fc.assert(
      fc.property(cluster, (made) => {
        const { snapshot, services } = make(made);
        for (const move of planRebalance(snapshot, 0).moves) {
          const { id, spec } = services.find(({ id }) => id === move.serviceId)!;
          expect(spec.rebalance).toBe('');
          expect(spec.replicas).toBeGreaterThan(1);
          const scheduler = new Scheduler(Ledger.of(snapshot));
          expect(scheduler.open(requestOf(id, spec, spec.template, { only: move.to })).pick()?.node.id).toBe(move.to);
          carryOut(snapshot, move);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('never makes a service more uneven, except to bring it nearer to what it asks for, or to pack', () => {
    fc.assert(
      fc.property(cluster, (made) => {
        const { snapshot, services } = make(made);
        const nodes = [...snapshot.all('node')];
        for (const move of planRebalance(snapshot, 0).moves) {
          const { id, spec } = services.find(({ id }) => id === move.serviceId)!;
          const levels = [
            ...spec.placement.spread.map(() => (node: Node) => node.labels.zone ?? ''),
            (node: Node) => node.id,
          ];
          const before = levels.map((of) => squares(countsOf(snapshot.tasksOfService(id), nodes, of)));
          carryOut(snapshot, move);
          if (/nearer|free/.test(move.reason)) continue;
          const after = levels.map((of) => squares(countsOf(snapshot.tasksOfService(id), nodes, of)));
          const first = levels.findIndex((_, level) => before[level] !== after[level]);
          if (first >= 0) expect(after[first]).toBeLessThan(before[first]!);
        }
      }),
      { numRuns: 300 },
    );
  });

  it('leaves 30 tasks of 2 nodes on 4 with at most one of difference, in at most 15 moves', () => {
    const { snapshot } = make({
      zones: ['', '', '', ''],
      began: 2,
      services: [0, 0, 0].map((_, at) => ({
        replicas: at === 0 ? 30 : 0,
        cpuMillis: 0,
        constrained: false,
        spread: [],
        maxReplicasPerNode: 0,
        strategy: '' as const,
        affinities: [],
        rebalance: '' as const,
      })) as unknown as Made['services'],
      dice: Array.from({ length: 36 }, (_, at) => at),
    });
    const { moves } = planRebalance(snapshot, 0);
    expect(moves.length).toBeLessThanOrEqual(15);
    for (const move of moves) carryOut(snapshot, move);
    const nodes = [...snapshot.all('node')];
    const own = [...snapshot.all('task')].filter(({ serviceName }) => serviceName === 's0');
    const counts = countsOf(own, nodes, ({ id }) => id);
    expect(Math.max(...counts) - Math.min(...counts)).toBeLessThanOrEqual(1);
  });
});
