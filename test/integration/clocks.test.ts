/** Hosts whose wall clocks are an hour off, and step: nobody is taken to be down for it, nothing restarts, and who is wrong is told. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { hostParts } from '#test/support/host-parts.ts';
import { setClock, settableClocks, wrongClock } from '#test/support/wall-clock.ts';

const hour = 3_600;
const within = { everyMs: 100 };
let cluster: Cluster;
let before: readonly string[];

const linesOf = async (service: string, count: number) =>
  (await cluster.settled(service, count)).map(({ name, id, pid, node }) => `${name} ${id} ${pid} ${node}`).sort();
const processes = async () => [...(await linesOf('app', 4)), ...(await linesOf('only', 1))];
const messageOf = async (node: string) => (await cluster.nodes()).find(({ name }) => name === node)?.message;
const says = (node: string, message: string) => eventually(async () => (await messageOf(node)) === message, within);
const why = async (node: string) => (await cluster.gantry('why', node)).stdout;
const killed = (host: string, pattern: string) =>
  cluster.sandbox.run(host, ['sh', '-c', `kill -9 $(pgrep ${pattern})`]);
const agentLog = (host: string) => cluster.sandbox.run(host, ['cat', '/var/log/agent.log']);

beforeAll(async () => {
  cluster = await startCluster(2, { settings: settableClocks('m1', 'h1', 'h2') });
  await cluster.apply(`
name: clocks
services:
  app:
    image: registry:5000/hello:1
    x-rebalance: off
    healthcheck: { test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"], interval: 1s, start_period: 20s }
    deploy: { replicas: 4, restart_policy: { delay: 2s } }
  only:
    image: registry:5000/hello:1
    x-failover: singleton
`);
  before = await processes();
});
afterAll(() => cluster?.close());

describe('F12: a host whose wall clock', () => {
  test('is an hour ahead, and then behind, is told of, and goes on', async () => {
    setClock(cluster, 'h2', hour);
    await says('h2', 'its clock is 1 h ahead of those of most hosts');
    expect(await why('h2')).toContain('its clock is 1 h ahead of those of most hosts');
    setClock(cluster, 'h2', -hour);
    await says('h2', 'its clock is 1 h behind those of most hosts');
    expect(await messageOf('h1')).toBe('');
    expect(await processes()).toEqual(before);
  });

  test('is an hour behind has its agent and watchdog started anew: they adopt what runs, and begin the next task in time', async () => {
    await killed('h2', hostParts.watchdog);
    await killed('h2', hostParts.agent);
    await cluster.nodeIs('h2', 'ready');
    await says('h2', 'its clock is 1 h behind those of most hosts');
    expect(await processes()).toEqual(before);
    const [victim] = (await cluster.running('app')).filter(({ node }) => node === 'h2');
    await cluster.sandbox.run('h2', ['kill', '-9', String(victim!.pid)]);
    await eventually(async () => {
      const tasks = await cluster.settled('app', 4, 15_000);
      return tasks.length === 4 && tasks.every(({ id, health }) => id !== victim!.id && health === 'healthy');
    }, within);
    setClock(cluster, 'h2', 0);
    await says('h2', '');
    before = await processes();
  });

  test('is that of the leader is told of as the leader’s, not as that of all others', async () => {
    setClock(cluster, 'm1', -hour);
    await eventually(
      async () => (await why('h1')).includes('The clock of m1, which leads, is 1 h behind those of most hosts.'),
      within,
    );
    for (const node of ['h1', 'h2']) expect(await messageOf(node)).toBe('');
    // It begins to lead anew by that clock.
    await killed('m1', hostParts['control plane']);
    await eventually(async () => (await why('h2')).includes('The clock of m1, which leads, is 1 h behind'), within);
    for (const node of ['h1', 'h2']) await cluster.nodeIs(node, 'ready');
    expect(await linesOf('app', 4)).toEqual(before.filter((one) => one.startsWith('app')));
    // The singleton is another one where nobody led for longer than its lease: on a machine with much to do.
    before = await processes();
    setClock(cluster, 'm1', 0);
    await eventually(async () => !(await why('h1')).includes('The clock of'), within);
  });

  test('is days behind is told so when it wants to join; with one that is an hour behind it joins', async () => {
    await cluster.sandbox.up({ hosts: 2, settings: wrongClock('h3', -72 * hour) });
    const adding = cluster.sandbox.add();
    await eventually(
      async () => expect(await agentLog('h3')).toContain('the clock of this host is 3 days behind that of 10.90.0.250'),
      within,
    );
    await cluster.sandbox.run('h3', [
      'sh',
      '-c',
      `sed -i s/FAKETIME=.*/FAKETIME=-${hour}/ /run/sandbox/settings.env; kill -9 $(pgrep ${hostParts.agent})`,
    ]);
    await adding;
    await says('h3', 'its clock is 1 h behind those of most hosts');
    expect(await processes()).toEqual(before);
  });
});
