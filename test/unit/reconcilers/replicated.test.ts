/** Which seat is filled where several are free. */
import { describe, expect, it } from 'vitest';
import { restartService, scaleService } from '#control-plane/reconcilers/service-changes.ts';
import type { Service } from '#proto/model/service.ts';
import { aNode, aService } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

describe('a replicated service', () => {
  it.each([
    ['its turn', (cluster: DecidedCluster, web: Service) => cluster.commit(restartService(cluster.wish, web.id))],
    [
      'a drained node',
      (cluster: DecidedCluster) =>
        cluster.put('node', { ...cluster.snapshot.node(aNode('h2').id)!, availability: 'drain' }),
    ],
  ] as const)('fills the seat that is left for %s, also where a lower one is free', (_, change) => {
    const web = aService('web', { replicas: 4 });
    const cluster = new DecidedCluster(
      ['h1', 'h2', 'h3'].map((name) => aNode(name)),
      [web],
    );
    cluster.settle(web);
    cluster.report(cluster.active(web).find(({ slot }) => slot === 1)!, { health: 'unhealthy' });
    cluster.commit(scaleService(cluster.wish, web.id, 3));
    cluster.settle(web);
    change(cluster, web);
    for (let step = 0; step < 20; step++) {
      // Twice: it must not look again for another seat while the old task stops.
      cluster.decide(web);
      cluster.decide(web);
      const slots = cluster.active(web).map(({ slot }) => slot);
      expect([2, 3, 4]).toEqual(expect.arrayContaining(slots));
      cluster.obey(web);
      cluster.now += 5_000;
    }
    expect(cluster.active(web).filter(({ state }) => state === 'running')).toHaveLength(3);
  });

  it('fills the seat that is left now rather than one that was left before there were to be fewer', () => {
    const web = aService('web', { replicas: 4 });
    const nodes = ['h1', 'h2', 'h3', 'h4'].map((name) => aNode(name));
    const cluster = new DecidedCluster(nodes, [web]);
    cluster.settle(web);
    const [first, , third] = cluster.active(web);
    const drain = ({ nodeName }: { readonly nodeName: string }) =>
      cluster.put('node', { ...cluster.snapshot.node(aNode(nodeName).id)!, availability: 'drain' });
    drain(first!);
    cluster.decide(web);
    cluster.commit(scaleService(cluster.wish, web.id, 3));
    cluster.settle(web);
    expect(cluster.active(web).map(({ slot }) => slot)).toEqual([2, 3, 4]);
    cluster.now += 1_000;
    drain(third!);
    cluster.decide(web);
    cluster.settle(web);
    expect(cluster.active(web).map(({ slot }) => slot)).toEqual([2, 3, 4]);
  });
});
