/** Hosts, agents and parts die; services go on, nothing is lost, nothing is left over. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster, type TaskRow } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { type HostPart, killing } from '#test/support/host-parts.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
  await cluster.apply(`
name: app
services:
  app:
    image: registry:5000/hello:1
    ports: ["18090:8080"]
    stop_grace_period: 1s
    deploy: { replicas: 6 }
`);
  await cluster.settled('app', 6);
});
afterAll(() => cluster?.close());

const answers = (host: string) => eventually(() => cluster.http(`http://10.90.0.${host.slice(1)}:18090/`));
const byNode = (tasks: readonly TaskRow[], node: string) => tasks.filter((task) => task.node === node);
const killOn = (host: string, part: HostPart) => cluster.sandbox.run(host, ['sh', '-c', killing(part)]);

describe('a container', () => {
  test('whose process is killed is replaced', async () => {
    const task = (await cluster.running('app'))[0]!;
    await cluster.sandbox.run(task.node, ['kill', '-9', String(task.pid)]);
    await eventually(async () => (await cluster.running('app')).every((one) => one.id !== task.id));
    await cluster.settled('app', 6);
    const history = await cluster.tasks('app', '--all');
    expect(history.find((one) => one.id === task.id)).toMatchObject({ state: 'failed', exitCode: 137 });
  });
});

describe('an agent', () => {
  test('that is killed leaves its containers alone and adopts them', async () => {
    const before = byNode(await cluster.settled('app', 6), 'h1');
    await killOn('h1', 'agent');
    await cluster.nodeIs('h1', 'ready');
    const after = byNode(await cluster.settled('app', 6), 'h1');
    expect(after.map((task) => [task.id, task.pid]).sort()).toEqual(before.map((task) => [task.id, task.pid]).sort());
    await answers('h1');
  });

  test('learns of an exit that happened while it was dead', async () => {
    const task = byNode(await cluster.settled('app', 6), 'h2')[0]!;
    await cluster.sandbox.run('h2', ['sh', '-c', `${killing('agent')}; kill -9 ${task.pid}`]);
    await eventually(
      async () => (await cluster.tasks('app', '--all')).find((one) => one.id === task.id)?.state === 'failed',
      { timeoutMs: 30_000, everyMs: 100 },
    );
    expect((await cluster.tasks('app', '--all')).find((one) => one.id === task.id)?.exitCode).toBe(137);
    await cluster.settled('app', 6);
  });
});

describe('parts that die', () => {
  test.for([
    ['containerd', 'h1'],
    ['etcd', 'm1'],
    ['NATS', 'm1'],
    ['control plane', 'm1'],
  ] as const)('%s comes back, and no task was touched', async ([part, host]) => {
    const before = (await cluster.settled('app', 6)).map((task) => task.id).sort();
    await killOn(host, part);
    await eventually(async () => (await cluster.gantry('scale', 'app=7')).code === 0, { timeoutMs: 40_000 });
    await cluster.settled('app', 7, 40_000);
    await eventually(async () => (await cluster.gantry('scale', 'app=6')).code === 0);
    const after = (await cluster.settled('app', 6, 40_000)).map((task) => task.id).sort();
    expect(after).toEqual(before);
    for (const node of ['h1', 'h2', 'h3']) await answers(node);
  });
});

describe('what a hand deletes', () => {
  test('F28: a route, a rule, a link address come back', async () => {
    const peer = (await cluster.nodes()).find((node) => node.name === 'h2')!;
    const routes = () => cluster.sandbox.run('h1', ['ip', 'route']);
    expect(await routes()).toContain(peer.subnet);
    await cluster.sandbox.run('h1', ['ip', 'route', 'del', peer.subnet]);
    await eventually(async () => (await routes()).includes(peer.subnet));
    const tables = () => cluster.sandbox.run('h1', ['nft', 'list', 'tables']);
    const own = (await tables()).split('\n').filter((line) => line.includes('gantry'));
    expect(own.length).toBeGreaterThan(0);
    for (const line of own) await cluster.sandbox.run('h1', ['nft', 'delete', ...line.split(' ')]);
    await eventually(async () => {
      const now = await tables();
      return own.every((line) => now.includes(line));
    });
    await answers('h1');
  });

  test('a foreign table is left alone', async () => {
    await cluster.sandbox.run('h1', ['nft', 'add', 'table', 'inet', 'mine']);
    await killOn('h1', 'agent');
    await cluster.nodeIs('h1', 'ready');
    expect(await cluster.sandbox.run('h1', ['nft', 'list', 'tables'])).toContain('inet mine');
  });
});

describe('a host', () => {
  test('that loses power: its tasks run elsewhere by themselves, and it comes back empty and useful', async () => {
    const lost = byNode(await cluster.settled('app', 6), 'h3');
    expect(lost.length).toBeGreaterThan(0);
    // Its power is off at once, whatever the cluster knows.
    expect((await cluster.sandbox.act('kill', 'h3')).ready).not.toContain('h3');
    await cluster.nodeIs('h3', 'down');
    const tasks = await cluster.settled('app', 6);
    expect(byNode(tasks, 'h3')).toEqual([]);
    for (let index = 0; index < 20; index++) await cluster.http('http://10.90.0.1:18090/');
    await cluster.sandbox.act('start', 'h3');
    await cluster.nodeIs('h3', 'ready', 40_000);
    // Its tasks of before ended with the power; none of them is started again.
    await eventually(
      async () => (await cluster.sandbox.run('h3', ['sh', '-c', 'pgrep -c conmon || true'])).trim() === '0',
    );
    await cluster.gantry('scale', 'app=9');
    expect(byNode(await cluster.settled('app', 9), 'h3').length).toBeGreaterThan(0);
    await cluster.gantry('scale', 'app=6');
    await cluster.settled('app', 6);
  });

  test('F14: that is cut off: replaced, and its duplicates end when the cable is back', async () => {
    await cluster.settled('app', 6);
    await cluster.sandbox.act('cut', 'h2');
    await cluster.nodeIs('h2', 'down');
    const tasks = await cluster.settled('app', 6);
    expect(byNode(tasks, 'h2')).toEqual([]);
    await cluster.sandbox.act('join', 'h2');
    await cluster.nodeIs('h2', 'ready', 40_000);
    await eventually(
      async () => {
        // They are evened out again meanwhile.
        const wanted = new Set((await cluster.settled('app', 6)).map((task) => task.id));
        const listed = await cluster.sandbox.run('h2', [
          'sh',
          '-c',
          'ls /var/lib/gantry/agent/containers 2>/dev/null || true',
        ]);
        return listed
          .split('\n')
          .filter((id) => id !== '')
          .every((id) => wanted.has(id));
      },
      { timeoutMs: 30_000 },
    );
    await answers('h2');
  });
});

describe('the manager', () => {
  test('cut off from every host takes none of them for down: all goes on, and no task is touched', async () => {
    const before = await cluster.settled('app', 6);
    await cluster.sandbox.act('cut', 'm1');
    await cluster.nodeIs('h1', 'unknown', 20_000);
    for (const host of ['h1', 'h2', 'h3']) await answers(host);
    await cluster.sandbox.act('join', 'm1');
    for (const host of ['h1', 'h2', 'h3']) await cluster.nodeIs(host, 'ready', 30_000);
    const ids = (tasks: readonly TaskRow[]) => tasks.map((task) => `${task.id} ${task.pid}`).sort();
    expect(ids(await cluster.settled('app', 6))).toEqual(ids(before));
  });
});
