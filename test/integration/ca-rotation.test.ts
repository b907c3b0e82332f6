/** A CA is changed while everything goes on: no task restarted, no request failed. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { startLoad } from '#test/support/load.ts';
import { machineNode } from '#test/support/machine-node.ts';

interface Status {
  readonly phase: string;
  readonly roots: readonly string[];
  readonly members: readonly {
    readonly kind: string;
    readonly name: string;
    readonly done: boolean;
    readonly message: string;
  }[];
}

let cluster: Cluster;
let config: string;
beforeAll(async () => {
  cluster = await startCluster(3);
  config = join(cluster.sandbox.layout.dir, 'operators');
  for (const name of ['laptop', 'lost']) {
    const file = join(cluster.sandbox.layout.dir, `${name}.json`);
    expect((await cluster.gantry('context', 'create', name, '--out', file)).code).toBe(0);
    expect(await operator('context', 'add', name, '--file', file)).toContain('saved');
  }
});
afterAll(() => cluster?.close());

const program = `
  const server = require('node:http').createServer((_, answer) => answer.end('fine'));
  server.keepAliveTimeout = 0;
  server.listen(8080, () => console.log('listening'));`;
const app = (replicas: number) => `
name: app
services:
  app:
    image: registry:5000/hello:1
    entrypoint: ["/node", "-e", ${JSON.stringify(program)}]
    ports: ["18090:8080"]
    volumes: ${JSON.stringify(machineNode)}
    healthcheck: { test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"], interval: 5s, start_interval: 200ms, start_period: 10s }
    deploy: { replicas: ${replicas}, placement: { constraints: ["node.hostname != h3"] } }
`;

const status = () => cluster.json<Status>('ca', 'status');
/** As on another machine: by certificate alone. */
const operator = (...args: string[]) => {
  const [program = '', main = ''] = cluster.cli.line;
  const line = `GANTRY_CONFIG=${config} ${program} ${main} ${args.join(' ')} 2>&1; true`;
  return cluster.sandbox.run('world', ['sh', '-c', line]);
};
const waitingFor = async () => (await status()).members.filter(({ done }) => !done).map(({ name }) => name);
const on = (host: string, script: string) => cluster.sandbox.run(host, ['sh', '-c', script]);
const pem = '/var/lib/gantry/agent/identity/cert.pem';
const issuerOn = (host: string) => on(host, `openssl x509 -noout -issuer -in ${pem}`);
const agent = "$(pgrep -f '[n]ode-agent/main.ts')";

test('a CA is rotated under load while an agent is away, and it is waited for', async () => {
  await cluster.apply(app(6));
  const before = (await cluster.settled('app', 6)).map(({ id, pid }) => `${id} ${pid}`).sort();
  const { token } = await cluster.json<{ token: string }>('token', 'create', '--for', '1h');
  const [old] = (await status()).roots;
  expect((await status()).members.map(({ kind, name, done }) => `${kind} ${name} ${done}`)).toEqual([
    'manager m1 true',
    'node h1 true',
    'node h2 true',
    'node h3 true',
    'operator laptop true',
    'operator lost true',
  ]);
  const targets = ['h1', 'h2', 'h3'].map((host) => `10.90.0.${host.slice(1)}:18090`);
  const load = startLoad(cluster, { targets, expected: 'fine', rate: 100 });
  await on('h3', `kill -STOP ${agent}`);
  expect((await cluster.gantry('ca', 'rotate', '--detach')).code).toBe(0);
  // Everybody else has renewed, and the old one is still trusted: h3 must be able to come back.
  await eventually(async () => expect(await waitingFor()).toEqual(['h3', 'laptop', 'lost']));
  expect(await operator('nodes', '--context', 'laptop')).toContain('h2');
  await eventually(async () => expect(await waitingFor()).toEqual(['h3', 'lost']));
  const { phase, roots } = await status();
  expect({ phase, old: roots[1] }).toEqual({ phase: 'renewing', old });
  expect(await issuerOn('h1')).not.toBe(await issuerOn('h3'));
  expect(await cluster.gantry('ca', 'rotate')).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('under way already'),
  });
  // A leader that comes in between goes on with it.
  await on('m1', "kill -9 $(pgrep -f '[c]ontrol-plane/main.ts run')");
  await on('h3', `kill -CONT ${agent}`);
  await eventually(async () => expect(await waitingFor()).toEqual(['lost']));
  const finished = await cluster.gantry('ca', 'rotate', '--finish');
  expect(finished).toMatchObject({ code: 0, stdout: expect.stringContaining('only the new CA is trusted') });
  const now = await status();
  expect(now.roots).toEqual([roots[0]]);
  expect(await waitingFor()).toEqual(['lost']);
  expect(await operator('nodes', '--context', 'lost')).toMatch(
    /no longer good: .*rotated.*gantry context create lost/s,
  );
  expect(await operator('nodes', '--context', 'laptop')).toContain('h2');
  expect(await issuerOn('h3')).toBe(await issuerOn('h1'));
  for (const host of ['h1', 'h2', 'h3'])
    await eventually(async () =>
      expect(await on(host, `grep -c BEGIN /var/lib/gantry/agent/identity/ca.pem`)).toBe('1\n'),
    );

  const report = await load.end();
  expect(report.bad).toEqual([]);
  expect(report.good).toBeGreaterThan(300);
  expect((await cluster.settled('app', 6)).map(({ id, pid }) => `${id} ${pid}`).sort()).toEqual(before);

  // The token of before names a CA that is no more, and is gone from the list.
  const place = '--data /tmp/late/data --run /tmp/late/run --containerd /tmp/none.sock';
  const line = `timeout 5 ${process.execPath} ${process.cwd()}/node-agent/main.ts --name late --advertise 10.90.0.1 --control-plane 10.90.0.250:7400 --metrics-port 0 ${place} --token`;
  expect(await on('h1', `${line} ${token} 2>&1; true`)).toMatch(/its CA is another one, or was rotated since/);
  expect(await cluster.json<unknown[]>('token', 'ls')).toEqual([]);
});

describe('after a rotation', () => {
  test('etcd and NATS take the new CA alone, agents come back, and a machine joins', async () => {
    await on('m1', 'pkill -9 -x etcd; pkill -9 -x nats-server; true');
    for (const host of ['h1', 'h2', 'h3']) await on(host, `kill -9 ${agent}`);
    await cluster.sandbox.act('kill', 'h3');
    await cluster.sandbox.act('start', 'h3');
    const { ready } = await cluster.sandbox.add();
    expect(ready).toContain('h4');
    await cluster.apply(app(8));
    await cluster.settled('app', 8);
    const logs = async () => (await cluster.gantry('logs', 'app')).stdout;
    await eventually(async () => expect(await logs()).toContain('app.8'));
  });
});
