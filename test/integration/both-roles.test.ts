/** Machines of managers that are nodes too, as in a cluster of three machines: they take tasks, serve ports, and are lost as a whole. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { managerAddress } from '#node-agent/sandbox/topology.ts';
import { makeNode } from '#test/support/both-roles.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { hostParts } from '#test/support/host-parts.ts';

const addresses = { m1: '10.90.0.250', h1: '10.90.0.1', h2: '10.90.0.2' };
let cluster: Cluster;

const compose = (replicas: number) => `
name: app
services:
  app:
    image: registry:5000/hello:1
    ports: ["18095:8080"]
    stop_grace_period: 1s
    deploy: { replicas: ${replicas} }
`;
const processes = async () =>
  (await cluster.settled('app', 6)).map(({ name, id, pid, node }) => `${name} ${id} ${pid} ${node}`).sort();
const answers = (address: string) => eventually(() => cluster.http(`http://${address}:18095/`));

describe('a manager that is a node too', () => {
  beforeAll(async () => {
    cluster = await startCluster(2);
    await makeNode(cluster, 'm1', ['m1']);
    await cluster.apply(compose(6));
  }, 120_000);
  afterAll(() => cluster?.close());

  test('runs its share, and each machine serves all of it', async () => {
    const perNode = Object.groupBy(await cluster.settled('app', 6), ({ node }) => node);
    expect(Object.keys(perNode).sort()).toEqual(['h1', 'h2', 'm1']);
    for (const address of Object.values(addresses)) {
      const seen = new Set<string>();
      await eventually(async () => seen.add(await cluster.http(`http://${address}:18095/`)).size === 6);
    }
  });

  test('has its control plane and its agent killed together: both are back, and nothing else was touched', async () => {
    const before = await processes();
    await cluster.sandbox.run('m1', [
      'sh',
      '-c',
      `kill -9 $(pgrep ${hostParts['control plane']}) $(pgrep ${hostParts.agent})`,
    ]);
    await eventually(async () => (await cluster.gantry('nodes')).code === 0);
    await eventually(async () => (await cluster.gantry('why', 'm1')).stdout.includes('says that the agent is running'));
    await cluster.nodeIs('m1', 'ready', 30_000);
    expect(await processes()).toEqual(before);
    await answers(addresses.m1);
  });

  test('is cut off from all others: it takes over from nobody, and no task is touched', async () => {
    const before = await processes();
    await cluster.sandbox.act('cut', 'm1');
    for (const node of ['h1', 'h2']) await cluster.nodeIs(node, 'unknown', 30_000);
    expect((await cluster.nodes()).find(({ name }) => name === 'h1')?.message).toContain('of another machine');
    await answers(addresses.h1);
    await cluster.sandbox.act('join', 'm1');
    for (const node of ['m1', 'h1', 'h2']) await cluster.nodeIs(node, 'ready', 30_000);
    expect(await processes()).toEqual(before);
    for (const address of Object.values(addresses)) await answers(address);
  }, 90_000);

  test('loses one other machine: its tasks run on those that are left', async () => {
    expect((await cluster.sandbox.act('kill', 'h2')).ready).not.toContain('h2');
    await cluster.nodeIs('h2', 'down');
    const perNode = Object.groupBy(await cluster.settled('app', 6), ({ node }) => node);
    expect(Object.keys(perNode).sort()).toEqual(['h1', 'm1']);
    for (const address of [addresses.m1, addresses.h1]) await answers(address);
  });
});

describe('three managers that are nodes too', () => {
  const managers = ['m1', 'm2', 'm3'];
  beforeAll(async () => {
    cluster = await startCluster(1, { managers: 3 });
    for (const manager of managers) await makeNode(cluster, manager, managers);
    await cluster.apply(compose(8));
  }, 180_000);
  afterAll(() => cluster?.close());

  test('lose the machine of the one that leads: its tasks run elsewhere as soon as its kernel is asked by the next one', async () => {
    const before = await cluster.settled('app', 8);
    const { leader } = await cluster.json<{ leader: string }>('info');
    expect(before.filter(({ node }) => node === leader).length).toBeGreaterThan(0);
    await cluster.sandbox.act('kill', leader);
    await cluster.nodeIs(leader, 'down');
    const after = await cluster.settled('app', 8);
    expect(after.filter(({ node }) => node === leader)).toEqual([]);
    const kept = after.filter(({ id }) => before.some((one) => one.id === id));
    expect(kept).toHaveLength(before.filter(({ node }) => node !== leader).length);
    // Not by silence alone, which the next leader has to bear for long.
    const { message } = (await cluster.nodes()).find(({ name }) => name === leader)!;
    expect(message).toMatch(/^not heard since this leader began; probed by: the leader heard nothing, .*heard nothing/);
    for (const { node } of after) await answers(managers.includes(node) ? managerAddress(node) : addresses.h1);
  }, 60_000);
});
