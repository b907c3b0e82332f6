/** Singletons and the lease of their node: when it is over, who holds one again, and what waits for it. */
import { describe, expect, it } from 'vitest';
import { explainTask } from '#control-plane/controllers/plan.ts';
import { adviseFence, confirmedMs, leaseMs, marginMs } from '#control-plane/reconcilers/fence.ts';
import { removeNode, scaleService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import type { Node } from '#proto/model/node.ts';
import { containerSpec } from '#proto/model/service.ts';
import { isTerminal } from '#proto/model/task.ts';
import { aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const nodes = () => ['h1', 'h2'].map((name) => aNode(name));

function running(): { cluster: DecidedCluster; db: ReturnType<typeof aService> } {
  const db = aService('db', { replicas: 1, failover: 'singleton' });
  const cluster = new DecidedCluster(nodes(), [db]);
  cluster.settle(db);
  return { cluster, db };
}

const places = (cluster: DecidedCluster, db: ReturnType<typeof aService>) =>
  cluster
    .tasks(db)
    .filter(({ state }) => !isTerminal(state))
    .map(({ nodeName, state }) => `${nodeName || 'nowhere'} ${state}`);

describe('the fence', () => {
  const asked = (now: number, beatAt: number | undefined, node: Partial<Node> = {}, more: object = {}) =>
    adviseFence(aNode('h1', node), 7, {
      now,
      leaderSinceMs: 0,
      lastBeatAt: () => beatAt,
      appliedRevision: () => undefined,
      withheld: new Set<never>(),
      ...more,
    });

  it('is there when the lease of the last beat is over, and not a moment before', () => {
    const overAt = 50_000 + leaseMs + marginMs;
    expect(asked(overAt - 1, 50_000)).toEqual({ fenced: undefined, wakeAtMs: overAt });
    expect(asked(overAt, 50_000).fenced).toBe(true);
  });

  it('counts the leases that the leader before may have granted', () => {
    const overAt = confirmedMs + leaseMs + marginMs;
    expect(asked(overAt - 1, undefined).fenced).toBeUndefined();
    expect(asked(overAt - 1, 100).fenced).toBeUndefined();
    expect(asked(overAt, undefined).fenced).toBe(true);
  });

  it('goes only when the agent holds a state in which it was there', () => {
    const applied = (revision: number | undefined) => ({ appliedRevision: () => revision });
    expect(asked(50_100, 50_000, { fenced: true }).fenced).toBeUndefined();
    expect(asked(50_100, 50_000, { fenced: true }, applied(6)).fenced).toBeUndefined();
    expect(asked(50_100, 50_000, { fenced: true }, applied(7)).fenced).toBe(false);
    expect(asked(60_000, 50_000, { fenced: true }, applied(7)).fenced).toBeUndefined();
  });

  it('is voided by writing the record, where the node was heard after all', () => {
    expect(asked(50_100, 50_000, {}, { withheld: new Set([aNode('h1').id]) }).fenced).toBe(false);
  });

  it('says nothing of a machine that has not described itself', () => {
    expect(asked(50_000, undefined, { bootId: '' }).fenced).toBeUndefined();
  });
});

describe('a singleton', () => {
  it('stays where it is while its node is down, and goes elsewhere when the lease is over', () => {
    const { cluster, db } = running();
    cluster.put('node', aNode('h1', { state: 'down' }));
    cluster.settle(db);
    expect(places(cluster, db)).toEqual(['h1 running']);
    expect(explainTask(cluster.snapshot, cluster.active(db)[0]!).summary).toContain(
      'its node is down, and as a singleton it is replaced when the lease of that is over',
    );
    cluster.put('node', aNode('h1', { state: 'down', fenced: true }));
    cluster.settle(db);
    expect(places(cluster, db)).toEqual(['h2 running']);
    expect(cluster.tasks(db)[0]).toMatchObject({
      state: 'orphaned',
      why: 'the lease of node h1 is over: no singleton runs on it',
    });
  });

  it('is not placed where no lease can be held, and says why', () => {
    const db = aService('db', { replicas: 1, failover: 'singleton' });
    const cluster = new DecidedCluster([aNode('h1', { components: {} }), aNode('h2', { fenced: true })], [db]);
    cluster.settle(db);
    expect(places(cluster, db)).toEqual(['nowhere pending']);
    const { rows } = explainTask(cluster.snapshot, cluster.active(db)[0]!);
    expect(rows.map(({ verdicts }) => verdicts.find((why) => why !== ''))).toEqual([
      'has an agent that keeps no lease: upgrade it',
      'has lost its lease, and not said since what runs on it',
    ]);
  });

  it('is updated by stopping it first, and the next is prepared before, and begins when its end was reported', () => {
    const { cluster, db } = running();
    const template = aTemplate({ container: containerSpec('db:2') });
    cluster.commit(updateService(cluster.wish, db.id, { ...cluster.service(db).spec, template }));
    const look = () => {
      for (let again = 0; again < 3; again++) cluster.decide(db);
      return cluster.tasks(db).map(({ revision, state, wanted }) => `${revision} ${state} ${wanted}`);
    };
    expect(look()).toEqual(['1 running running', '2 assigned ready']);
    cluster.report(cluster.active(db)[1]!, { state: 'ready' });
    expect(look()).toEqual(['1 running shutdown', '2 ready ready']);
    cluster.settle(db);
    expect(places(cluster, db)).toEqual([expect.stringMatching(/h. running/)]);
    expect(cluster.active(db)[0]!.revision).toBe(2);
  });

  it('becomes one only with a task that was begun as one', () => {
    const web = aService('web', { replicas: 1 });
    const cluster = new DecidedCluster(nodes(), [web]);
    cluster.settle(web);
    cluster.commit(updateService(cluster.wish, web.id, { ...web.spec, failover: 'singleton' }));
    cluster.settle(web);
    expect(cluster.active(web).map(({ revision, singleton }) => [revision, singleton])).toEqual([[2, true]]);
  });

  it('is not scaled up, and its node is not removed under it', () => {
    const { cluster, db } = running();
    expect(() => scaleService(cluster.wish, db.id, 2)).toThrow('service demo/db is a singleton: it has one task');
    expect(() => removeNode(cluster.wish, aNode('h1').id, true)).toThrow(
      'demo/db, which must never run twice, may run on node h1',
    );
    cluster.put('node', aNode('h1', { state: 'down', fenced: true }));
    cluster.settle(db);
    cluster.commit(removeNode(cluster.wish, aNode('h1').id));
    expect(places(cluster, db)).toEqual(['h2 running']);
  });
});
