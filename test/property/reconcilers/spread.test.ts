/** However a rollout goes, its new tasks end up as evenly spread as if they had been placed alone. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { rollbackService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { containerSpec, defaults, type Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const update = fc.record({
  order: fc.constantFrom('start-first' as const, 'stop-first' as const),
  parallelism: fc.integer({ min: 0, max: 4 }),
});
const size = { replicas: fc.integer({ min: 1, max: 14 }), nodes: fc.integer({ min: 1, max: 5 }) };

function running(made: { replicas: number; nodes: number; joinLater?: number }, policy: object) {
  const { replicas, joinLater = 0 } = made;
  const nodes = Array.from({ length: made.nodes + joinLater }, (_, index) => aNode(`h${index}`));
  const web = aService('web', { replicas, update: { ...defaults.update, monitorMs: 1_000, ...policy } });
  const cluster = new DecidedCluster(nodes.slice(0, made.nodes), [web]);
  cluster.settle(web);
  for (const node of nodes.slice(made.nodes)) cluster.put('node', node);
  return { cluster, web, nodes };
}

function changeImage(cluster: DecidedCluster, web: Service): void {
  const { spec } = cluster.service(web);
  const template = aTemplate({ container: containerSpec('web:2') });
  cluster.commit(updateService(cluster.wish, web.id, { ...spec, template }));
}

/** Looks and time, until the rollout has ended or `enough` says so. */
function roll(cluster: DecidedCluster, web: Service, enough: () => boolean = () => false): void {
  for (let round = 0; round < 200 && !enough(); round++) {
    cluster.settle(web);
    if (!['updating', 'rolling-back'].includes(cluster.service(web).rollout.state)) return;
    cluster.now += 500;
  }
}

function skew(tasks: readonly Task[], nodes: readonly { readonly id: string }[]): number {
  const counts = nodes.map(({ id }) => tasks.filter(({ nodeId }) => nodeId === id).length);
  return Math.max(...counts) - Math.min(...counts);
}

describe('a rolling update', () => {
  it('leaves its replicas spread over equal nodes with a skew of at most one, also over nodes that joined since', () => {
    fc.assert(
      fc.property(update, fc.record({ ...size, joinLater: fc.nat(2) }), (policy, made) => {
        const { cluster, web, nodes } = running(made, policy);
        changeImage(cluster, web);
        roll(cluster, web);
        expect(cluster.service(web).rollout.state).toBe('completed');
        const tasks = cluster.active(web);
        expect(tasks.map(({ revision }) => revision)).toEqual(Array(made.replicas).fill(2));
        expect(skew(tasks, nodes)).toBeLessThanOrEqual(1);
      }),
      { numRuns: 150 },
    );
  });

  it('does so too when it is rolled back halfway', () => {
    fc.assert(
      fc.property(update, fc.record({ ...size, moved: fc.integer({ min: 1, max: 14 }) }), (policy, made) => {
        const { cluster, web, nodes } = running(made, policy);
        changeImage(cluster, web);
        roll(cluster, web, () => cluster.active(web).filter(({ revision }) => revision === 2).length >= made.moved);
        cluster.commit(rollbackService(cluster.wish, web.id));
        roll(cluster, web);
        const tasks = cluster.active(web);
        expect(tasks.map(({ revision }) => revision)).toEqual(Array(made.replicas).fill(1));
        expect(skew(tasks, nodes)).toBeLessThanOrEqual(1);
      }),
      { numRuns: 150 },
    );
  });
});
