/** Which subnet a node has, and what it is told when it cannot have the one it asks for. */
import { describe, expect, it } from 'vitest';
import { adviseSubnets, hasFreeSubnet } from '#control-plane/reconcilers/subnets.ts';
import { nodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { aCluster, aNetwork, aNode, aTask, idOf } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

const now = 1_000_000;

/** `subnet: message` of each node, by name. */
function advice(cluster: DecidedCluster): Record<string, string> {
  const told = [...adviseSubnets(cluster.snapshot, now)];
  return Object.fromEntries(told.map(([node, { subnet, message }]) => [node.name, `${subnet}: ${message}`]));
}

const fresh = (name: string, fields: Partial<Node> = {}) => aNode(name, { subnet: '', ...fields });
const clusterOf = (nodes: readonly Node[], network = '10.192.0.0/22') => {
  const cluster = new DecidedCluster(nodes);
  cluster.put('cluster', aCluster({ network, vipNetwork: '10.224.0.0/14' }));
  return cluster;
};

describe('a node', () => {
  it('gets the first subnet that nobody has, once it has said what it is', () => {
    const cluster = clusterOf([aNode('h1', { subnet: '10.192.0.0/24' }), fresh('h2'), fresh('h3', { bootId: '' })]);
    expect(advice(cluster)).toEqual({ h1: '10.192.0.0/24: ', h2: '10.192.1.0/24: ' });
  });

  it('gets none in which tasks of a removed node are remembered: they may still run', () => {
    const cluster = clusterOf([aNode('h1', { subnet: '10.192.0.0/24' }), fresh('h2')]);
    cluster.put('task', aTask('left', { nodeId: nodeId(idOf('gone')), state: 'orphaned', address: '10.192.1.7' }));
    expect(advice(cluster).h2).toBe('10.192.2.0/24: ');
  });

  it('gets none that meets a network of any host, or a network of services', () => {
    const cluster = clusterOf([
      fresh('h1', { foreignNetworks: ['10.192.0.0/25', '192.168.0.0/16'] }),
      aNode('h9', { subnet: '10.192.3.0/24', foreignNetworks: ['10.192.1.128/28'] }),
    ]);
    expect(advice(cluster).h1).toBe('10.192.2.0/24: ');
    cluster.put('network', aNetwork('shop_db', ['10.192.2.16/28']));
    expect(advice(cluster).h1).toMatch(/^: no subnet: the cluster's network 10.192.0.0\/22 has none left/);
  });

  it('whose host has the whole of our network elsewhere is told so, and nobody else is kept from a subnet', () => {
    const cluster = clusterOf([fresh('h1', { foreignNetworks: ['10.0.0.0/8'] }), fresh('h2')]);
    expect(advice(cluster)).toEqual({
      h1: expect.stringMatching(
        /^: no subnet: host h1 reaches 10.0.0.0\/8, which has the whole of the cluster's network/,
      ),
      h2: '10.192.0.0/24: ',
    });
  });

  it('moves away from a network that a host turns out to have, but not with tasks', () => {
    const cluster = clusterOf([
      aNode('h1', { subnet: '10.192.0.0/24' }),
      fresh('h2', { foreignNetworks: ['10.192.0.0/24'] }),
    ]);
    expect(advice(cluster)).toEqual({ h1: '10.192.1.0/24: ', h2: '10.192.2.0/24: ' });
    cluster.put('task', aTask('web', { nodeId: nodeId(idOf('h1')), state: 'running', address: '10.192.0.2' }));
    expect(advice(cluster)).toEqual({
      h1: '10.192.0.0/24: ',
      h2: expect.stringMatching(
        /^10.192.1.0\/24: host h2 reaches 10.192.0.0\/24 .* meets 10.192.0.0\/24, the subnet of node h1 \(gantry drain h1/,
      ),
    });
  });

  it('hears of another that tells the same address', () => {
    const cluster = clusterOf([aNode('h1'), aNode('h2', { address: '10.90.0.1' }), aNode('h3')]);
    expect(advice(cluster)).toEqual({
      h1: expect.stringMatching(/: address 10.90.0.1 is that of node h2 too/),
      h2: expect.stringMatching(/: address 10.90.0.1 is that of node h1 too/),
      h3: '10.192.3.0/24: ',
    });
  });

  it('hears of a network of its host that meets the addresses of services', () => {
    const cluster = clusterOf([fresh('h1', { foreignNetworks: ['10.225.1.0/24'] })]);
    expect(advice(cluster).h1).toMatch(/^10.192.0.0\/24: host h1 reaches 10.225.1.0\/24 .* the addresses of services/);
  });
});

describe('a pin', () => {
  it('is honoured, in place of a subnet that no task needs, and before those who take any', () => {
    const cluster = clusterOf([
      fresh('h1'),
      aNode('h2', { subnet: '10.192.1.0/24', pinnedSubnet: '10.192.0.0/25' }),
      aNode('h3', { subnet: '10.192.2.0/24', pinnedSubnet: '10.192.2.0/24' }),
    ]);
    expect(advice(cluster)).toEqual({ h1: '10.192.1.0/24: ', h2: '10.192.0.0/25: ', h3: '10.192.2.0/24: ' });
  });

  it.each([
    ['10.1.0.0/24', "it is not within the cluster's network 10.192.0.0/22"],
    ['10.192.0.0/16', "it is not within the cluster's network 10.192.0.0/22"],
    ['10.192.2.0/25', 'node h2 has 10.192.2.0/24'],
    ['10.192.3.64/28', 'node h3 has 10.192.3.0/28, of the same /24'],
    ['10.192.1.0/24', 'host h3 reaches 10.192.1.8/30 by a link or route of its own'],
  ])('of %s is refused: %s', (pinnedSubnet, why) => {
    const others = [
      aNode('h2', { subnet: '10.192.2.0/24' }),
      aNode('h3', { subnet: '10.192.3.0/28', pinnedSubnet: '10.192.3.0/28', foreignNetworks: ['10.192.1.8/30'] }),
    ];
    const kept = clusterOf([aNode('h1', { subnet: '10.192.0.0/24', pinnedSubnet }), ...others]);
    expect(advice(kept).h1).toContain(
      `10.192.0.0/24: subnet ${pinnedSubnet} is asked for, but ${why}: it keeps 10.192.0.0/24 (start its agent`,
    );
    // One that has none yet is not left without: it takes any.
    expect(advice(clusterOf([fresh('h1', { pinnedSubnet }), ...others])).h1).toContain(`${why}: it has none`);
  });

  it('waits for the tasks to leave', () => {
    const node = aNode('h1', { subnet: '10.192.0.0/24', pinnedSubnet: '10.192.3.0/24' });
    const cluster = clusterOf([node]);
    const task = aTask('web', { nodeId: node.id, state: 'running', address: '10.192.0.2' });
    cluster.put('task', task);
    expect(advice(cluster).h1).toBe(
      '10.192.0.0/24: subnet 10.192.3.0/24 is asked for, but 1 tasks have addresses of 10.192.0.0/24: it keeps 10.192.0.0/24 (gantry drain h1, then activate it)',
    );
    cluster.put('task', { ...task, state: 'shutdown', stateAtMs: now });
    expect(advice(cluster).h1).toBe('10.192.3.0/24: ');
  });

  it('of addresses that rest from another life waits until they have rested', () => {
    const node = aNode('h1', { subnet: '10.192.0.0/24', pinnedSubnet: '10.192.3.0/24' });
    const cluster = clusterOf([node]);
    const task = aTask('web', { nodeId: node.id, state: 'shutdown', address: '10.192.3.2', stateAtMs: now - 59_000 });
    cluster.put('task', task);
    expect(advice(cluster).h1).toContain("10.192.3.2 was a task's of a node that had it before");
    cluster.put('task', { ...task, stateAtMs: now - 61_000 });
    expect(advice(cluster).h1).toBe('10.192.3.0/24: ');
  });

  it('stands where a route of the host has the whole of our network: the operator knows better', () => {
    const cluster = clusterOf([fresh('h1', { foreignNetworks: ['10.0.0.0/8'], pinnedSubnet: '10.192.3.0/24' })]);
    expect(advice(cluster).h1).toBe(
      "10.192.3.0/24: host h1 reaches 10.0.0.0/8 by a link or route of its own: what of it is in the cluster's network 10.192.0.0/22 is hidden from it",
    );
  });
});

it('a machine may join as long as there is a subnet beside those that wait for theirs', () => {
  const nodes = [aNode('h1', { subnet: '10.192.1.0/24' }), fresh('h2', { bootId: '' }), fresh('h3')];
  expect(hasFreeSubnet(clusterOf(nodes).snapshot, now)).toBe(true);
  expect(hasFreeSubnet(clusterOf([...nodes, fresh('h4')]).snapshot, now)).toBe(false);
});
