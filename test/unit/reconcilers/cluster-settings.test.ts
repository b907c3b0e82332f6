/** Settings of the cluster: how they are written, and which stay while anybody has something of them. */
import { describe, expect, it } from 'vitest';
import { setCluster } from '#control-plane/reconcilers/cluster-settings.ts';
import { aCluster, aNetwork, aNode, aService, aTask } from '#test/support/builders.ts';
import { DecidedCluster } from '#test/support/decided-cluster.ts';

function clusterOf(...nodes: Parameters<typeof aNode>[]) {
  const cluster = new DecidedCluster(nodes.map((one) => aNode(...one)));
  cluster.put('cluster', aCluster({ network: '10.192.0.0/11', vipNetwork: '10.224.0.0/14' }));
  return cluster;
}

function set(cluster: DecidedCluster, settings: Record<string, string>) {
  const { changes, notes } = setCluster(cluster, settings);
  cluster.commit(changes);
  return { changes: changes.length, notes, record: cluster.snapshot.cluster };
}

it('several are set at once, and none where nothing differs', () => {
  const cluster = clusterOf();
  const asked = { encapsulation: 'always', encryption: 'wireguard', network6: 'fd00:0:0:1::/96', domain: 'x.test' };
  expect(set(cluster, asked).record).toMatchObject({ ...asked, network6: 'fd00:0:0:1::/96' });
  expect(set(cluster, asked).changes).toBe(0);
  expect(set(cluster, { encryption: 'off' }).record).toMatchObject({ encryption: '', encapsulation: 'always' });
  expect(set(cluster, { trash: '7d' }).record).toMatchObject({ trashMs: 7 * 86_400_000 });
  expect(set(cluster, { trash: 'off' }).record).toMatchObject({ trashMs: 0 });
  expect(set(cluster, { 'flap-damping': '1m' }).record).toMatchObject({ flapDampingMs: 60_000 });
  expect(set(cluster, { 'flap-damping': 'off' }).record).toMatchObject({ flapDampingMs: 0 });
  expect(set(cluster, { 'agent-away-limit': '24h' }).record).toMatchObject({ agentAwayLimitMs: 86_400_000 });
  expect(set(cluster, { 'orphan-after': '30m' }).record).toMatchObject({ orphanAfterMs: 1_800_000 });
});

it.each([
  [{ colour: 'red' }, 'the cluster has no setting "colour"'],
  [{ 'orphan-after': 'never' }, 'orphan-after: "never" is not how long to count on tasks of a node that is down'],
  [{ 'flap-damping': '11m' }, 'flap-damping: "11m" is not how long to pass over a node that was down twice'],
  [{ 'agent-away-limit': '4s' }, 'agent-away-limit: "4s" is not how long to leave tasks alone without their agent'],
  [{ encapsulation: 'often' }, 'encapsulation: "often" is not possible'],
  [{ encryption: 'ipsec' }, 'encryption: "ipsec" is not possible'],
  [{ network: '10.192.0.0' }, 'network: "10.192.0.0" is not an IPv4 range'],
  [{ network: '10.192.0.1/11' }, 'network: "10.192.0.1/11" has host bits: its range is 10.192.0.0/11'],
  [{ network: '10.192.0.0/25' }, 'network: 10.192.0.0/25 is not between /8 and /24'],
  [{ network: '10.224.0.0/15' }, 'network 10.224.0.0/15 and vip-network 10.224.0.0/14 overlap'],
  [{ network6: 'fd00::/64' }, 'network6: fd00::/64 is not a /96'],
  [{ network6: 'fd00::1/96' }, 'network6: fd00::1/96 has host bits'],
  [{ network6: 'fe80::/96' }, 'network6: fe80::/96 is neither unique local'],
  [{ network6: '10.0.0.0/96' }, 'network6: "10.0.0.0/96" is not an IPv6 range'],
  [{ domain: 'Gantry' }, 'domain: "Gantry" is not a DNS name'],
  [{ trash: 'soon' }, 'trash: "soon" is not a time for the trash'],
  [{ trash: '91d' }, 'trash: "91d" is not a time for the trash'],
] as [Record<string, string>, string][])('%j is refused: %s', (settings, why) => {
  expect(() => set(clusterOf(), settings)).toThrow(why);
});

describe('what somebody has something of stays', () => {
  it('the network while there are nodes', () => {
    const cluster = clusterOf(['h1'], ['h2'], ['h3'], ['h4'], ['h5']);
    expect(() => set(cluster, { network: '10.64.0.0/12' })).toThrow(
      'network cannot become 10.64.0.0/12: h1, h2, h3 and 2 more have their subnets of it',
    );
    expect(set(cluster, { network: '10.192.0.0/11' }).changes).toBe(0);
    expect(set(clusterOf(), { network: '10.64.0.0/12' }).changes).toBe(1);
  });

  it('the network of services while there are services, and neither meets another network', () => {
    const cluster = clusterOf();
    cluster.put('network', aNetwork('shop_db', ['172.28.0.0/16']));
    expect(() => set(cluster, { 'vip-network': '172.16.0.0/12' })).toThrow('network shop_db has 172.28.0.0/16');
    cluster.put('service', aService('web'));
    expect(() => set(cluster, { 'vip-network': '10.64.0.0/16' })).toThrow('demo/web have their addresses of it');
  });

  it('the IPv6 network while a network uses it', () => {
    const cluster = clusterOf();
    cluster.put('network', aNetwork('shop_web', [], { ipv6: true }));
    expect(() => set(cluster, { network6: 'fd01::/96' })).toThrow('tasks on shop_web have addresses of it');
  });

  it('the domain while tasks look names up in it', () => {
    const cluster = clusterOf(['h1']);
    cluster.put('task', aTask('web', { state: 'running', nodeId: aNode('h1').id }));
    expect(() => set(cluster, { domain: 'x.test' })).toThrow('1 tasks look names up in the old one');
  });
});

it('nodes without WireGuard are named when it is asked for', () => {
  const cluster = clusterOf(['h1', { wireguardKey: 'k' }], ['h2'], ['h3']);
  expect(set(cluster, { encryption: 'wireguard' }).notes).toEqual([
    'h2, h3 have no WireGuard: until they do, nothing goes between them and the others',
  ]);
});

it('nodes on several links are told of when encapsulation is switched off', () => {
  const cluster = clusterOf(['h1', { link: '10.90.0.1/24' }], ['h2', { link: '10.90.1.2/24' }]);
  expect(set(cluster, { encapsulation: 'never' }).notes).toEqual([
    expect.stringContaining('not all nodes share a link'),
  ]);
});
