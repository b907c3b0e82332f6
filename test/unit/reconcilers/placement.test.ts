/** Where tasks go that want to be near others, away from them, or have what few nodes offer. */
import { describe, expect, it } from 'vitest';
import type { GenericResource } from '#proto/model/resources.ts';
import { type Affinity, defaults, type Service } from '#proto/model/service.ts';
import { isActive } from '#proto/model/task.ts';
import { aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const zoned = () => ['a', 'b', 'a', 'b'].map((zone, index) => aNode(`h${index + 1}`, { labels: { zone } }));

function wanting(name: string, replicas: number, affinities: readonly Partial<Affinity>[]): Service {
  const whole = affinities.map((one) => ({
    service: 'demo/db',
    scope: 'node',
    apart: false,
    preferred: false,
    ...one,
  }));
  return aService(name, { replicas, placement: { ...defaults.placement, affinities: whole } });
}

function nodesOf(cluster: DecidedCluster, service: Service): string[] {
  return cluster.active(service).map(({ nodeName }) => nodeName);
}

describe('affinity', () => {
  it('waits until a task of the other service is there, and goes where it is', () => {
    const db = aService('db', {
      replicas: 1,
      placement: { ...defaults.placement, constraints: ['node.hostname == h2'] },
    });
    const web = wanting('web', 2, [{}]);
    const cluster = new DecidedCluster(zoned(), [db, web]);
    cluster.settle(web);
    expect(cluster.active(web)[0]?.message).toBe('no node fits (4 in all): 4 where it would not be with demo/db');
    cluster.settle(db);
    cluster.settle(web);
    expect(nodesOf(cluster, web)).toEqual(['h2', 'h2']);
  });

  it('of a zone goes to any node of it', () => {
    const db = aService('db', {
      replicas: 1,
      placement: { ...defaults.placement, constraints: ['node.hostname == h2'] },
    });
    const web = wanting('web', 4, [{ scope: 'node.labels.zone' }]);
    const cluster = new DecidedCluster(zoned(), [db, web]);
    cluster.settle(db);
    cluster.settle(web);
    expect(new Set(nodesOf(cluster, web))).toEqual(new Set(['h2', 'h4']));
  });

  it('that is only preferred takes what there is', () => {
    const web = wanting('web', 2, [{ preferred: true }]);
    const cluster = new DecidedCluster(zoned(), [web]);
    cluster.settle(web);
    expect(nodesOf(cluster, web)).toEqual(['h1', 'h2']);
  });
});

describe('anti-affinity', () => {
  it('keeps both apart, whichever comes first', () => {
    const web = wanting('web', 2, [{ apart: true }]);
    const db = aService('db', { replicas: 4 });
    const cluster = new DecidedCluster(zoned(), [web, db]);
    cluster.settle(web);
    cluster.settle(db);
    expect(nodesOf(cluster, web)).toEqual(['h1', 'h2']);
    expect(new Set(nodesOf(cluster, db))).toEqual(new Set(['h3', 'h4']));
  });

  it('of a service to itself leaves one task to each zone, and the rest pending', () => {
    const web = wanting('web', 3, [{ service: 'demo/web', scope: 'node.labels.zone', apart: true }]);
    const cluster = new DecidedCluster(zoned(), [web]);
    cluster.settle(web);
    expect(nodesOf(cluster, web)).toEqual(['h1', 'h2', '']);
    expect(cluster.active(web)[2]?.message).toContain('4 where it would not be apart from demo/web in another zone');
  });
});

describe('binpack', () => {
  it('fills one node after another', () => {
    const reservations = { cpuMillis: 1_000, memoryBytes: 0, pids: 0, generic: [] };
    const web = aService('web', {
      replicas: 6,
      template: aTemplate({ reservations }),
      placement: { ...defaults.placement, strategy: 'binpack' },
    });
    const cluster = new DecidedCluster(zoned(), [web]);
    cluster.settle(web);
    expect(nodesOf(cluster, web)).toEqual(['h1', 'h1', 'h1', 'h1', 'h2', 'h2']);
  });
});

describe('generic resources', () => {
  const offering = (name: string, generic: readonly GenericResource[]) =>
    aNode(name, { capacity: { cpuMillis: 4_000, memoryBytes: 2 ** 33, pids: 0, generic } });
  const asking = (replicas: number, count: number) => {
    const generic = [{ kind: 'gpu', count, names: [] }];
    return aService('train', {
      replicas,
      template: aTemplate({ reservations: { cpuMillis: 0, memoryBytes: 0, pids: 0, generic } }),
    });
  };

  it('are given by name, and who comes too late is told why', () => {
    const gpus = [{ kind: 'gpu', count: 2, names: ['g0', 'g1'] }];
    const train = asking(3, 1);
    const cluster = new DecidedCluster([offering('h1', gpus), aNode('h2')], [train]);
    cluster.settle(train);
    const [first, second, third] = cluster.active(train);
    expect([first?.generic[0]?.names, second?.generic[0]?.names]).toEqual([['g0'], ['g1']]);
    expect(third).toMatchObject({ state: 'pending', message: 'no node fits (2 in all): 2 without 1 gpu free' });
    cluster.report(first!, { state: 'failed' });
    cluster.settle(train);
    const names = cluster.active(train).map(({ generic }) => generic[0]?.names[0]);
    expect(names.filter((name) => name === 'g0')).toHaveLength(1);
    expect(cluster.active(train).filter(isActive)).toHaveLength(3);
  });

  it('of two each, the third task is pending', () => {
    const train = asking(3, 2);
    const cluster = new DecidedCluster([offering('h1', [{ kind: 'gpu', count: 4, names: [] }])], [train]);
    cluster.settle(train);
    expect(cluster.active(train).map(({ state }) => state)).toEqual(['running', 'running', 'pending']);
    expect(cluster.active(train)[0]?.generic).toEqual([{ kind: 'gpu', count: 2, names: [] }]);
  });
});
