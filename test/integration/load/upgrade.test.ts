/** A cluster goes over to another version host by host and manager by manager, and back: users notice nothing, no task is restarted, nothing is forgotten. */
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hostLayout } from '#node-agent/sandbox/layout.ts';
import { worldAddress } from '#node-agent/sandbox/topology.ts';
import { seededRandom, systemRandom } from '#proto/kernel/random.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { hostParts } from '#test/support/host-parts.ts';
import { type Load, startLoad } from '#test/support/load.ts';
import { machineNode } from '#test/support/machine-node.ts';
import { omen, otherVersion, ownVersion } from '#test/support/other-version.ts';
import { type Ending, UpgradeLab } from '#test/support/upgrade-lab.ts';

const targets = [1, 2].map((number) => `10.90.0.${number}:18092`);
const guard = "-f '[w]atchdog/guard.sh'";
const program = `
  const server = require('node:http').createServer((request, answer) => answer.end(request.socket.remoteAddress + '\\n'));
  server.keepAliveTimeout = 0;
  server.listen({ port: 8080, host: '0.0.0.0', backlog: 1024 });`;

const seed = systemRandom.int(2 ** 31);
let cluster: Cluster;
let lab: UpgradeLab;
let before: readonly string[];
let load: Load;

/** Each as its process: who was restarted, or replaced, is another one. */
const processes = async (service: string, count: number) =>
  (await cluster.settled(service, count)).map(({ id, pid, node }) => `${id} ${pid} ${node}`).sort();
const guards = async () => (await Promise.all(['h1', 'h2'].map((host) => lab.pids(host, guard)))).flat();
const shell = (host: string, line: string) => cluster.sandbox.run(host, ['sh', '-c', line]);

const etcdctl = (command: string) => {
  const pki = '/var/lib/gantry/control-plane/pki';
  const identity = `--cacert ${pki}/ca.pem --cert ${pki}/client/cert.pem --key ${pki}/client/key.pem`;
  return shell('m1', `ETCDCTL_API=3 etcdctl --endpoints https://127.0.0.1:2379 ${identity} ${command}`);
};

/** A change that must go through, and be there. */
async function secretIsKept(name: string): Promise<void> {
  const { code, stderr } = await cluster.feed(name, 'secret', 'create', name, '-');
  expect(code, stderr).toBe(0);
  const secrets = await cluster.json<{ name: string }[]>('secret', 'ls');
  expect(secrets.filter((one) => one.name === name)).toHaveLength(1);
}

beforeAll(async () => {
  cluster = await startCluster(2, { managers: 3 });
  console.log(`seed ${seed}`);
  lab = new UpgradeLab(cluster, seededRandom(seed));
  await cluster.apply(`
name: upgrade
services:
  who:
    image: registry:5000/hello:1
    entrypoint: ["/node", "-e", ${JSON.stringify(program)}]
    ports: ["18092:8080"]
    volumes: ${JSON.stringify(machineNode)}
    deploy: { replicas: 4 }
  only:
    image: registry:5000/hello:1
    x-failover: singleton
`);
  before = await processes('who', 4);
  for (const target of targets) await eventually(() => cluster.http(`http://${target}/`));
  load = startLoad(cluster, { targets, expected: worldAddress, rate: 100 });
}, 180_000);
afterAll(() => cluster?.close());

async function agentsTo(version: string, endings: readonly Ending[]): Promise<void> {
  const only = await processes('only', 1);
  const watching = await guards();
  expect(watching).toHaveLength(1);
  for (const [index, host] of ['h1', 'h2'].entries()) {
    await lab.agentTo(host, version, endings[index]!);
    expect(await processes('who', 4)).toEqual(before);
    // Its lease was renewed all the time.
    expect(await processes('only', 1)).toEqual(only);
    // Of the version that began it: it has a task to end, and no other reason to.
    expect(await guards()).toEqual(watching);
  }
  const { stdout } = await cluster.gantry('nodes');
  for (const host of ['h1', 'h2'])
    expect(stdout).toMatch(new RegExp(`^${host} +ready.* ${version.replaceAll('.', '\\.')} `, 'm'));
}

describe('F36: a cluster under a hundred requests a second', () => {
  test('has its agents and their watchdogs replaced by those of another version, host by host', async () => {
    await agentsTo(otherVersion, ['SIGTERM', 'at every step']);
    await secretIsKept('by-mixed-versions');
  });

  test('has its managers replaced, one by one, each of them killed at any step', async () => {
    for (const [index, manager] of ['m1', 'm2', 'm3'].entries()) {
      await lab.managerTo(manager, otherVersion, index === 0 ? 'SIGTERM' : 'at every step');
      await secretIsKept(`with-${manager}-of-another-version`);
      expect(await processes('who', 4)).toEqual(before);
    }
    expect((await cluster.gantry('node', 'label', 'h1', 'by=other')).code).toBe(0);
  }, 180_000);

  test('goes back to the version of before, which reads what the other one has written', async () => {
    for (const manager of ['m3', 'm1', 'm2']) {
      await lab.managerTo(manager, ownVersion, 'SIGKILL');
      await secretIsKept(`with-${manager}-back`);
    }
    await agentsTo(ownVersion, ['SIGKILL', 'SIGTERM']);
    expect(await shell('h1', 'cat /var/lib/gantry/agent/journal')).toContain(`["item/${omen}/1",`);
    // What this version has changed since keeps what it does not know.
    expect((await cluster.gantry('node', 'label', 'h1', 'by=this')).code).toBe(0);
    const record = (await etcdctl('get --prefix /gantry/node/ --print-value-only'))
      .split('\n')
      .find((line) => line.includes('"h1"'));
    expect(JSON.parse(record!)).toMatchObject({ agentVersion: ownVersion, labels: { by: 'this' }, [omen]: 'record' });
    for (const name of ['with-m1-of-another-version', 'with-m2-back'])
      expect((await cluster.json<{ name: string }[]>('secret', 'ls')).map((one) => one.name)).toContain(name);
  }, 180_000);

  test('has an agent refuse, in words, what it would misread; what runs goes on', async () => {
    const log = join(hostLayout(cluster.sandbox.layout, 'h1').log, 'agent.log');
    await shell('h1', "echo '2 100.0.0' > /var/lib/gantry/agent/form");
    await shell('h1', `kill -TERM $(pgrep ${hostParts.agent})`);
    await eventually(async () =>
      (await shell('h1', 'tail -5 /var/log/agent.log')).includes(
        'agent 100.0.0 has written /var/lib/gantry/agent in form 2',
      ),
    );
    for (const target of targets) await cluster.http(`http://${target}/`);
    await shell('h1', 'rm /var/lib/gantry/agent/form');
    await cluster.nodeIs('h1', 'ready');
    await eventually(async () => (await lab.pids('h1', hostParts.agent)).length === 1);
    expect(await processes('who', 4), log).toEqual(before);
  });

  test('fails none of them', async () => {
    const report = await load.end();
    console.log(report);
    expect(report.bad).toEqual([]);
    expect(report.good).toBe(report.asked);
    expect(report.asked).toBeGreaterThan(2_000);
  });
});
