/** What a host holds after services were deployed, rolled, killed and removed is what it held before, but for images and named volumes. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { leakLooks, remains } from '#test/support/leaks.ts';

const hosts = ['h1', 'h2'] as const;

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster(hosts.length);
});
afterAll(() => cluster?.close());

/** The rules of its published port and its VIP. */
const looks = { rules: 'nft list table ip gantry | grep -E "10\\.224\\.|18600" | grep -v "/14"' };
const left = () => remains(cluster, hosts, looks);

const file = (image: string) => `
name: much
services:
  web:
    image: registry:5000/hello:${image}
    ports: ["18600:8080"]
    volumes: ["/anonymous"]
    tmpfs: ["/scratch"]
    stop_grace_period: 2s
    healthcheck: { test: ["CMD", "true"], interval: 1s }
    deploy: { replicas: 16, update_config: { parallelism: 8, order: start-first, monitor: 100ms } }
  own:
    image: registry:5000/hello:1
    init: true
    volumes: ["kept:/kept"]
    deploy: { replicas: 4, placement: { constraints: ["node.hostname == h1"] } }
volumes: { kept: {} }
`;

test('nothing is left of tasks that are gone', async () => {
  expect(await left()).toEqual({});
  await cluster.apply(file('1'));
  for (let index = 0; index < 10; index++) await cluster.http('http://10.90.0.1:18600/');
  const before = await left();
  // The looks see what they are for.
  for (const kind of Object.keys({ ...leakLooks, ...looks })) expect(Object.keys(before)).toContain(`${kind} of h1`);
  const running = await cluster.running('web');
  for (const task of running.slice(0, 4)) await cluster.sandbox.run(task.node, ['kill', '-9', String(task.pid)]);
  await cluster.settled('web', 16);
  await cluster.apply(file('2'));
  await cluster.gantry('exec', 'web.1', 'true');
  const path = cluster.compose('broken.yaml', file('broken'));
  expect((await cluster.gantry('apply', '-f', path)).code).toBe(1);
  expect((await cluster.gantry('rm', 'web', 'own')).code).toBe(0);
  await eventually(
    async () => {
      expect(await left()).toEqual({});
      return true;
    },
    { everyMs: 500 },
  );
  // A named volume is the user's.
  expect(await cluster.sandbox.run('h1', ['ls', '/var/lib/gantry/agent/volumes'])).toContain('much_kept');
});
