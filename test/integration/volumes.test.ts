/** A volume's data stays where it is: its service waits for that host, or begins anew elsewhere where it says so. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
/** The disk of a machine that is no host of the cluster. */
const stranger = mkdtempSync(join(tmpdir(), 'stranger-'));
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(async () => {
  await cluster?.close();
  rmSync(stranger, { recursive: true, force: true });
});

const service = (name: string, more = '') => `
name: ${name}
services:
  ${name}:
    image: registry:5000/hello:1
    stop_grace_period: 1s
    volumes: ["data:/data"]
    ${more}
volumes: { data: {} }
`;
const shell = async (task: string, script: string) => {
  const { code, stdout, stderr } = await cluster.gantry('exec', task, 'sh', '-c', script);
  if (code !== 0) throw new Error(stderr);
  return stdout.trim();
};
const hostOf = async (name: string) => (await cluster.settled(name, 1))[0]!.node;

test('a volume keeps all replicas on one host', async () => {
  await cluster.apply(service('many', 'deploy: { replicas: 3 }'));
  expect(new Set((await cluster.settled('many', 3)).map(({ node }) => node)).size).toBe(1);
  expect((await cluster.gantry('rm', 'many')).code).toBe(0);
});

test('a host that is lost with a volume: its service waits and says why, and runs there again with its data', async () => {
  await cluster.apply(service('keep'));
  const home = await hostOf('keep');
  await shell('keep.1', 'echo precious > /data/file');
  await cluster.sandbox.act('kill', home);
  await cluster.nodeIs(home, 'down');
  const reason = `volume keep_data is on ${home}, which is down`;
  await eventually(async () => {
    const [task, ...others] = await cluster.tasks('keep');
    expect(others).toEqual([]);
    expect(task).toMatchObject({ state: 'pending', node: '', message: reason });
    return true;
  });
  const why = await cluster.gantry('why', 'keep.1');
  expect(why.stdout).toContain(reason);
  expect(why.stdout).toContain('VOLUMES');
  expect(why.stdout).toContain(`✗ volume keep_data is on ${home}`);

  const removal = await cluster.gantry('node', 'rm', home);
  expect(removal.code).not.toBe(0);
  expect(removal.stderr).toContain('keep_data');

  await cluster.sandbox.act('start', home);
  await cluster.nodeIs(home, 'ready', 40_000);
  expect(await hostOf('keep')).toBe(home);
  expect(await shell('keep.1', 'cat /data/file')).toBe('precious');
});

test('a service that says so runs elsewhere with an empty volume', async () => {
  await cluster.apply(service('cache', 'x-volume-loss: recreate'));
  const home = await hostOf('cache');
  await shell('cache.1', 'echo stale > /data/file');
  await cluster.sandbox.act('kill', home);
  await eventually(async () => (await hostOf('cache')) !== home, { timeoutMs: 30_000, everyMs: 100 });
  expect(await shell('cache.1', 'ls /data')).toBe('');
  const events = await cluster.gantry('events');
  expect(events.stdout).toContain(`volume cache_data begins empty on`);
  await cluster.sandbox.act('start', home);
  await cluster.nodeIs(home, 'ready', 40_000);
  expect(await hostOf('cache')).not.toBe(home);
});

test('another machine does not get the name of a lost one, whose volumes are not on it, before that is given up', async () => {
  await cluster.apply(service('lost'));
  const home = await hostOf('lost');
  await cluster.sandbox.act('kill', home);
  await cluster.nodeIs(home, 'down');
  const other = (await cluster.nodes()).find(({ state }) => state === 'ready')!.name;
  const joins = async () => {
    const token = (await cluster.gantry('token', 'create')).stdout.trim();
    const flags = `--name ${home} --advertise 10.90.0.1 --control-plane 10.90.0.250:7400 --metrics-port 0`;
    const places = `--data ${stranger}/data --run ${stranger}/run --containerd ${stranger}/none.sock`;
    const agent = `${process.execPath} ${process.cwd()}/node-agent/main.ts ${flags} ${places} --token ${token}`;
    const isTold = `grep -qE 'another machine|joined the cluster' ${stranger}/log`;
    const line = `${agent} > ${stranger}/log 2>&1 & agent=$!; while kill -0 $agent && ! ${isTold}; do sleep 0.1; done; kill $agent; cat ${stranger}/log`;
    return cluster.sandbox.run(other, ['sh', '-c', line]);
  };
  const refused = await joins();
  expect(refused).toMatch(/this is another machine, or another disk; that node has the data of volume .*lost_data/);
  expect(refused).toContain(`gantry node rm ${home} --force`);
  const given = await cluster.gantry('node', 'rm', home, '--force');
  expect(given.stdout).toContain('volume lost_data is given up with it');
  expect(await joins()).toContain('joined the cluster');
  const [task] = await cluster.tasks('lost');
  expect(task).toMatchObject({ state: 'pending', message: expect.stringContaining('which is no longer a member') });
});
