/** A manager's machine is a node too, as in a cluster of three machines: it takes tasks, serves ports, and is cut off as a whole. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { hostParts } from '#test/support/host-parts.ts';

const addresses = { m1: '10.90.0.250', h1: '10.90.0.1', h2: '10.90.0.2' };
let cluster: Cluster;

const processes = async () =>
  (await cluster.settled('app', 6)).map(({ name, id, pid, node }) => `${name} ${id} ${pid} ${node}`).sort();
const answers = (address: string) => eventually(() => cluster.http(`http://${address}:18095/`));

/** What the host of a worker runs (node-agent/sandbox/host-script.ts), beside the manager's own. */
async function makeNode(): Promise<void> {
  const { code, stdout, stderr } = await cluster.gantry('token', 'create', '--for', '1h');
  if (code !== 0) throw new Error(`token create ended with ${code}: ${stderr}`);
  const program = '"${GANTRY_PROGRAM:-$program}/node-agent/main.ts"';
  const agent = `${process.execPath} ${program} --data /var/lib/gantry/agent --run /run/gantry --name m1 --advertise ${addresses.m1} --control-plane ${addresses.m1}:7400 --containerd /run/containerd/containerd.sock --insecure-registry registry:5000 --token ${stdout.trim()}`;
  const services = `program=${process.cwd()}; . /run/sandbox/settings.env
keep() { while :; do "$@"; sleep 0.2; done; }
keep containerd --config /run/sandbox/containerd.toml > /var/log/containerd.log 2>&1 &
keep ${agent} > /var/log/agent.log 2>&1 &
wait`;
  await cluster.sandbox.run('m1', ['sh', '-c', `setsid sh -c '${services}' < /dev/null > /dev/null 2>&1 &`]);
  await cluster.nodeIs('m1', 'ready', 30_000);
}

beforeAll(async () => {
  cluster = await startCluster(2);
  await makeNode();
  await cluster.apply(`
name: app
services:
  app:
    image: registry:5000/hello:1
    ports: ["18095:8080"]
    stop_grace_period: 1s
    deploy: { replicas: 6 }
`);
}, 120_000);
afterAll(() => cluster?.close());

describe('a manager that is a node too', () => {
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
