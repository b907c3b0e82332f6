/** What is called dead and what is not: an agent or a watchdog that stands still, and a host without power. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;

beforeAll(async () => {
  cluster = await startCluster(3);
  await cluster.apply(`
name: failover
services:
  app:
    image: registry:5000/hello:1
    stop_grace_period: 1s
    deploy: { replicas: 6 }
`);
  await cluster.settled('app', 6);
});
afterAll(() => cluster?.close(), 60_000);

const why = async (name: string) => (await cluster.gantry('why', name)).stdout;
const placed = async () => (await cluster.settled('app', 6)).map(({ id, pid }) => `${id} ${pid}`).sort();
const signal = (host: string, name: string, program: string) =>
  cluster.sandbox.run(host, ['pkill', `-${name}`, '-f', program]);

describe('a host that lives', () => {
  test('keeps its tasks while its agent is stopped, and is told to be away', async () => {
    const before = await placed();
    await eventually(async () => (await why('h2')).includes('Its watchdog says that the agent is running'));
    await signal('h2', 'STOP', '[n]ode-agent/main.ts');
    try {
      await eventually(
        async () => (await why('h2')).includes('h2 is ready') && (await why('h2')).includes('is stopped'),
        {
          timeoutMs: 20_000,
        },
      );
    } finally {
      await signal('h2', 'CONT', '[n]ode-agent/main.ts');
    }
    await eventually(async () => (await why('h2')).includes('the agent is running'));
    expect(await placed()).toEqual(before);
  });

  test('keeps its tasks while nothing of ours runs there and its firewall drops every connection: its kernel answers echoes', async () => {
    const before = await placed();
    await eventually(async () => !(await why('h2')).includes('never answered'));
    await cluster.sandbox.run('h2', [
      'nft',
      'table inet shut { chain c { type filter hook input priority 0; tcp flags & (syn|ack) == syn drop; }; }',
    ]);
    for (const program of ['[n]ode-agent/main.ts', '[w]atchdog/main.ts']) await signal('h2', 'STOP', program);
    try {
      await eventually(async () => (await why('h2')).includes('but its kernel answers'));
      expect(await why('h2')).toMatch(/h2 is ready.*the leader heard its kernel/s);
    } finally {
      for (const program of ['[w]atchdog/main.ts', '[n]ode-agent/main.ts']) await signal('h2', 'CONT', program);
      await cluster.sandbox.run('h2', ['nft', 'delete table inet shut']);
    }
    await eventually(async () => (await why('h2')).includes('the agent is running'));
    expect(await placed()).toEqual(before);
  });

  test('keeps its tasks while its watchdog is stopped, and gets another one', async () => {
    const before = await placed();
    const pid = (await cluster.sandbox.run('h3', ['cat', '/run/gantry/watchdog.pid'])).trim();
    await signal('h3', 'STOP', '[w]atchdog/main.ts');
    await eventually(async () => (await cluster.sandbox.run('h3', ['cat', '/run/gantry/watchdog.pid'])).trim() !== pid);
    await eventually(async () => (await why('h3')).includes('the agent is running'));
    expect(await placed()).toEqual(before);
  });
});

test('F30: a host that goes down again and again leaves what it lost to others, and gets new tasks last', async () => {
  expect((await cluster.gantry('cluster', 'set', 'flap-damping=5m')).code).toBe(0);
  for (let time = 0; time < 2; time++) {
    await cluster.sandbox.act('cut', 'h3');
    await cluster.nodeIs('h3', 'down', 20_000);
    await cluster.sandbox.act('join', 'h3');
    await cluster.nodeIs('h3', 'ready', 20_000);
  }
  const here = async () => (await cluster.settled('app', 6, 30_000)).filter(({ node }) => node === 'h3').length;
  await eventually(async () => (await here()) === 0, { timeoutMs: 30_000 });
  expect(await why('h3')).toContain('flapping: down 2 times since');
  expect((await cluster.gantry('nodes')).stdout).toContain('h3: flapping: down 2 times since');
  expect((await cluster.gantry('scale', 'app=8')).code).toBe(0);
  expect((await cluster.settled('app', 8)).map(({ node }) => node)).not.toContain('h3');
  expect(await why('app.8')).toMatch(/h3 .*flapping: after all others/);
  expect((await cluster.gantry('activate', 'h3')).code).toBe(0);
  await eventually(async () => !(await why('h3')).includes('flapping'));
  await eventually(async () => (await cluster.settled('app', 8)).some(({ node }) => node === 'h3'), {
    timeoutMs: 60_000,
  });
  await cluster.gantry('scale', 'app=6');
  await cluster.settled('app', 6);
}, 180_000);

describe('a host without power', () => {
  test('is down by what the leader and its peers heard, and its tasks run elsewhere', async () => {
    await eventually(async () => !(await why('h1')).includes('never answered'));
    await cluster.sandbox.act('kill', 'h1');
    await cluster.nodeIs('h1', 'down', 20_000);
    const said = await why('h1');
    expect(said).toMatch(/h1 is down since .*the leader heard nothing/);
    expect(said).toMatch(/h[23] heard nothing/);
    await eventually(async () => (await cluster.settled('app', 6)).every(({ node }) => node !== 'h1'), {
      timeoutMs: 30_000,
    });
  });
});
