/** What would be if: nodes lost, drained and added, services scaled; nothing is changed by asking. */
import { describe, expect, it } from 'vitest';
import { whatIf } from '#control-plane/controllers/what-if.ts';
import { scaleService } from '#control-plane/reconcilers/service-changes.ts';
import { noResources } from '#proto/model/resources.ts';
import { aNode, aService, aTemplate } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const nothing = { killed: [], drained: [], added: undefined, changes: [] };

function running(nodes: number, replicas: number, memoryBytes = 0) {
  const template = aTemplate({ reservations: { ...noResources, memoryBytes } });
  const web = aService('web', { replicas, template });
  const names = Array.from({ length: nodes }, (_, index) => `h${index + 1}`);
  const capacity = { ...noResources, cpuMillis: 4_000, memoryBytes: 4 };
  const cluster = new DecidedCluster(
    names.map((name, index) => aNode(name, { capacity, subnet: `10.192.${index}.0/24` })),
    [web],
  );
  cluster.settle(web);
  const node = (name: string) => [...cluster.snapshot.all('node')].find((one) => one.name === name)!;
  const ask = (over: Partial<Parameters<typeof whatIf>[1]>) => {
    const { tasks, nodes } = whatIf(cluster.snapshot, { ...nothing, ...over }, cluster.now);
    return {
      tasks: (tasks.get(web.id) ?? []).map(({ action, slot, node }) => `${action} ${slot} ${node}`),
      nodes: nodes.map(({ node, tasksBefore, tasksAfter }) => `${node.name} ${tasksBefore} ${tasksAfter}`),
      forecasts: nodes,
    };
  };
  return { cluster, web, node, ask };
}

describe('what if', () => {
  it('a node is lost: its tasks run elsewhere, and nothing has changed', () => {
    const { cluster, web, node, ask } = running(3, 3);
    expect(ask({ killed: [node('h2')] })).toMatchObject({
      tasks: ['stop 2 h2', 'start 2 h1'],
      nodes: ['h1 1 2', 'h2 1 0', 'h3 1 1'],
    });
    expect(cluster.active(web).map(({ nodeName }) => nodeName)).toEqual(['h1', 'h2', 'h3']);
    expect(node('h2').state).toBe('ready');
  });

  it('a node is lost that nobody can replace: its tasks wait, and the reason is told', () => {
    const { node, ask } = running(2, 2, 3);
    expect(ask({ killed: [node('h1')] }).tasks).toEqual(['stop 1 h1', 'start 1 ']);
  });

  it('the node of a singleton is lost: its next task waits for the end of the lease, and that is told', () => {
    const { cluster, web, node } = running(2, 1);
    cluster.put('service', { ...cluster.service(web), spec: { ...web.spec, failover: 'singleton' } });
    cluster.put('task', { ...cluster.active(web)[0]!, singleton: true });
    const { tasks } = whatIf(cluster.snapshot, { ...nothing, killed: [node('h1')] }, cluster.now);
    expect(tasks.get(web.id)).toMatchObject([
      { action: 'stop', node: 'h1', reason: 'the lease of node h1 is over: no singleton runs on it' },
      { action: 'start', node: 'h2' },
    ]);
  });

  it('a node is drained: as if it was', () => {
    const { node, ask } = running(2, 2);
    expect(ask({ drained: [node('h1')] })).toMatchObject({ nodes: ['h1 1 0', 'h2 1 2'] });
  });

  it('nodes are added: what waits is placed on them, and they get subnets of their own', () => {
    const { cluster, node, ask } = running(1, 3, 3);
    expect(cluster.snapshot.all('task')).toBeDefined();
    const { tasks, nodes, forecasts } = ask({ added: { count: 2, like: node('h1') } });
    expect(tasks).toEqual(['start 2 new1', 'start 3 new2']);
    expect(nodes).toEqual(['h1 1 1', 'new1 0 1', 'new2 0 1']);
    expect(new Set(forecasts.map(({ node }) => node.subnet)).size).toBe(3);
  });

  it('nodes are added to one that runs all: what would be moved to even them out is told, and counted', () => {
    const { node, ask } = running(1, 6);
    const { tasks, nodes, forecasts } = ask({ added: { count: 2, like: node('h1') } });
    expect(tasks).toEqual([]);
    expect(nodes).toEqual(['h1 6 2', 'new1 0 2', 'new2 0 2']);
    expect(forecasts[1]!.tasksAfter).toBe(2);
  });

  it('a service is scaled: where its tasks would be, and how much of each node is reserved then', () => {
    const { cluster, web, ask } = running(2, 2, 1);
    const { tasks, forecasts } = ask({ changes: scaleService(cluster.wish, web.id, 4) });
    expect(tasks).toEqual(['start 3 h1', 'start 4 h2']);
    expect(
      forecasts.map(({ reservedBefore, reservedAfter }) => [reservedBefore.memoryBytes, reservedAfter.memoryBytes]),
    ).toEqual([
      [1, 2],
      [1, 2],
    ]);
  });
});
