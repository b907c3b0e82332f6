/** Where tasks go on real nodes: even when hosts come, near each other, with the devices they ask for, and by importance. */
import { existsSync } from 'node:fs';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { worldAddress } from '#node-agent/sandbox/topology.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { startLoad } from '#test/support/load.ts';

let cluster: Cluster;

/** As in load.test.ts: it ends at once when it is told to, so that all care is ours. */
const program = `
  const server = require('node:http').createServer((request, answer) => {
    setTimeout(() => answer.end(request.socket.remoteAddress + '\\n'), Math.random() * 20);
  });
  server.keepAliveTimeout = 0;
  server.listen({ port: 8080, host: '0.0.0.0', backlog: 1024 });
  process.on('SIGTERM', () => process.exit(0));`;
const libraries = ['/lib', '/lib64', '/usr/lib'].filter((path) => existsSync(path));
const web = `
name: even
services:
  who:
    image: registry:5000/hello:1
    entrypoint: ["/node", "--max-semi-space-size=1", "-e", ${JSON.stringify(program)}]
    ports: ["18080:8080"]
    volumes: ${JSON.stringify([`${process.execPath}:/node:ro`, ...libraries.map((path) => `${path}:${path}:ro`)])}
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]
      interval: 20s
      start_interval: 300ms
      start_period: 30s
    deploy: { replicas: 30 }
`;

beforeAll(async () => {
  cluster = await startCluster(2);
});
afterAll(() => cluster?.close());

async function perNode(service: string): Promise<number[]> {
  const counts = new Map((await cluster.nodes()).map(({ name }) => [name, 0]));
  for (const { node } of await cluster.running(service)) counts.set(node, (counts.get(node) ?? 0) + 1);
  return [...counts.values()].sort((a, b) => a - b);
}

const moves = async () => (await cluster.json<{ moves: unknown[] }>('rebalance', '--dry-run')).moves;

async function out(...args: string[]): Promise<string> {
  const { code, stdout, stderr } = await cluster.gantry(...args);
  expect(code, `gantry ${args.join(' ')}: ${stdout}${stderr}`).toBe(0);
  return stdout;
}

test('thirty tasks on two hosts spread over two more within a minute, in at most 15 moves, and no request fails', async () => {
  await cluster.apply(web);
  await cluster.settled('who', 30, 60_000);
  expect(await perNode('who')).toEqual([15, 15]);
  const before = new Set((await cluster.tasks('who')).map(({ id }) => id));
  const targets = [1, 2].map((number) => `10.90.0.${number}:18080`);
  for (const target of targets) await eventually(() => cluster.http(`http://${target}/`));
  const load = startLoad(cluster, { targets, expected: worldAddress, rate: 100 });
  await cluster.sandbox.add();
  await cluster.sandbox.add();
  const begin = performance.now();
  await eventually(
    async () => {
      const counts = await perNode('who');
      expect(counts).toHaveLength(4);
      expect(counts.at(-1)! - counts[0]!).toBeLessThanOrEqual(1);
      return (await moves()).length === 0;
    },
    { timeoutMs: 60_000 },
  );
  const seconds = (performance.now() - begin) / 1_000;
  await cluster.settled('who', 30);
  const moved = (await cluster.tasks('who')).filter(({ id }) => !before.has(id));
  const report = await load.end();
  console.log({ seconds, moves: moved.length, ...report });
  expect(report.bad).toEqual([]);
  expect(moved.length).toBeLessThanOrEqual(15);
  expect(moved[0]?.why).toMatch(/^moved from h\d: h\d has \d+ of it, h\d \d+$/);
}, 180_000);

/** The agent of a host, started again with something to offer. */
const offer = (host: string, resources: string) =>
  cluster.sandbox.run(host, [
    'sh',
    '-c',
    `echo "export GANTRY_RESOURCES='${resources}'" >> /run/sandbox/settings.env; kill -9 $(pgrep -f '[n]ode-agent/main.ts')`,
  ]);

const sleeping = (name: string, lines: string) => `
name: ${name}
services:
  ${name}:
    image: registry:5000/hello:1
    entrypoint: ["sleep", "1000"]
    stop_signal: SIGKILL
    ${lines}
`;

test('devices are counted and given by name, and who comes too late is told why by node', async () => {
  await out('rm', 'who');
  await offer('h1', 'gpu=/dev/fuse;spare');
  await eventually(async () => (await out('nodes')).includes('gpu 0/2'));
  const file = cluster.compose('train.yaml', sleeping('train', 'deploy: { replicas: 3 }\n    gpus: [{ count: 1 }]'));
  await out('apply', '-d', '-f', file);
  const running = await eventually(async () => {
    const tasks = await cluster.running('train');
    if (tasks.length !== 2) throw new Error(`${tasks.length} run`);
    return tasks;
  });
  expect(new Set(running.map(({ node }) => node))).toEqual(new Set(['h1']));
  const seen = await Promise.all(
    running.map(({ slot }) =>
      out('exec', `train.${slot}`, 'sh', '-c', 'echo $DOCKER_RESOURCE_GPU; ls /dev/fuse || true'),
    ),
  );
  expect(seen.map((text) => text.trim().split('\n')).sort()).toEqual([['/dev/fuse', '/dev/fuse'], ['spare']]);
  const late = (await cluster.tasks('train')).find(({ state }) => state === 'pending')!;
  const why = await out('why', `train.${late.slot}`);
  expect(why).toMatch(/is pending: no node fits \(4 in all\): 4 without 1 gpu free/);
  expect(why).toMatch(/needs 1 gpu, 0 of 2 free/);
  expect(why).toMatch(/offers no gpu/);
  await out('rm', 'train');
});

test('a task of higher priority takes the place of a lower one, which says so and comes back when there is room', async () => {
  const h2 = (await cluster.json<{ name: string; capacity: { memoryBytes: number } }[]>('nodes')).find(
    ({ name }) => name === 'h2',
  )!;
  const most = `${Math.floor((h2.capacity.memoryBytes * 0.6) / 2 ** 20)}M`;
  const deploy = `deploy: { placement: { constraints: [node.hostname == h2] }, resources: { reservations: { memory: ${most} } } }`;
  await cluster.apply(sleeping('low', deploy));
  const [first] = await cluster.settled('low', 1);
  await cluster.apply(sleeping('high', `x-priority: 100\n    ${deploy}`));
  const [waiting] = await eventually(async () => {
    const tasks = await cluster.tasks('low');
    if (tasks[0]?.state !== 'pending') throw new Error(`it is ${tasks[0]?.state}`);
    return tasks;
  });
  expect(waiting?.why).toMatch(/^replaces low\.1 \(.{5}\): preempted by high\/high \(priority 100\)$/);
  const gone = (await cluster.tasks('low', '-a')).find(({ id }) => id === first?.id);
  expect(gone?.why).toBe('preempted by high/high (priority 100)');
  expect(await out('why', 'low.1')).toContain('preempted by high/high (priority 100)');
  await out('rm', 'high');
  await cluster.settled('low', 1);
  await out('rm', 'low');
});
