/** A service has as many tasks as it is called for: none while nobody calls, and no request is lost on the way up and down. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { worldAddress } from '#node-agent/sandbox/topology.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { startLoad } from '#test/support/load.ts';
import { machineNode } from '#test/support/machine-node.ts';

const targets = [1, 2, 3].map((number) => `10.90.0.${number}:18090`);
/** More for a figure than for the story. */
const wakes = Number(process.env.GANTRY_TEST_WAKES ?? 3);
let cluster: Cluster;

/** Answers with the address of who asks, and listens a moment after it has started, as programs do. */
const program = `
  const server = require('node:http').createServer((request, answer) => answer.end(request.socket.remoteAddress + '\\n'));
  server.keepAliveTimeout = 0;
  setTimeout(() => server.listen({ port: 8080, host: '0.0.0.0', backlog: 1024 }), 150);
  process.on('SIGTERM', () => process.exit(0));`;

const volumes = JSON.stringify(machineNode);
const service = (scaling: string, image = 'registry:5000/hello:1') => `
name: load
services:
  who:
    image: ${image}
    entrypoint: ["/node", "-e", ${JSON.stringify(program)}]
    ports: ["18090:8080"]
    volumes: ${volumes}
    x-autoscale: ${scaling}
  client:
    image: registry:5000/hello:1
    entrypoint: ["sleep", "1000000"]
    volumes: ${volumes}
    stop_grace_period: 1s
`;
const toZero = '{ min: 0, max: 6, requests: 20/s, idle: 1s, hold: 20s, down: { stabilization: 5s } }';

beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

const asleep = () =>
  eventually(async () => (await cluster.tasks('who')).length === 0, { timeoutMs: 30_000, everyMs: 200 });

/** How long until there is an answer, ms. */
async function answerMs(ask: () => Promise<string>): Promise<number> {
  const began = performance.now();
  expect(await ask()).toMatch(/\d+\.\d+\.\d+\.\d+/);
  return performance.now() - began;
}

const fromOutside = (host: number) =>
  cluster.sandbox.run('world', ['curl', '-sS', '--fail', '--max-time', '10', `http://10.90.0.${host}:18090/`]);

async function fromTask(): Promise<string> {
  const line = ['/node', '-e', "fetch('http://who:8080/').then((answer) => answer.text()).then(console.log)"];
  const { code, stdout, stderr } = await cluster.gantry('exec', 'client.1', ...line);
  expect(code, stderr).toBe(0);
  return stdout;
}

test(
  'a service that nobody calls has no task; the first request waits for one, by whatever node it comes',
  async () => {
    await cluster.apply(service(toZero));
    await asleep();
    const events = await cluster.gantry('events');
    expect(events.stdout).toContain('from 1 to 0 replicas: no request for 1 s');
    const times: number[] = [];
    for (let wake = 0; wake < wakes; wake++) {
      await asleep();
      times.push(await answerMs(() => fromOutside(1 + (wake % 3))));
      const [task] = await cluster.running('who');
      expect(task?.why).toMatch(/^autoscaled to 1: a request arrived at h[123]$/);
    }
    times.sort((a, b) => a - b);
    console.log(`first answer from zero, of ${wakes}: p50 ${times[wakes >> 1]} ms, max ${times.at(-1)} ms`);
    // The slowest of them is a matter of what else this machine does.
    expect(times[wakes >> 1]).toBeLessThan(2_000);
    await asleep();
    // The command itself takes a while.
    expect(await answerMs(fromTask)).toBeLessThan(4_000);
  },
  60_000 + wakes * 10_000,
);

test('load from nothing is followed up and down again, and no request fails', async () => {
  await asleep();
  const began = performance.now();
  const load = startLoad(cluster, { targets, expected: worldAddress, rate: 200 });
  await eventually(async () => (await cluster.running('who')).length >= 4, { everyMs: 200 });
  const upMs = Math.round(performance.now() - began);
  const { stdout: events } = await cluster.gantry('events');
  expect(events).toMatch(/autoscaled: from 1 to \d replicas: [\d.]+ requests\/s, 20 to a task/);
  const { stdout: status } = await cluster.gantry('autoscale', 'status', 'who');
  expect(status).toMatch(
    /load\/who +\d\/\d +0-6 +requests [\d.]+\/s of 20\/s, idle \d seconds? of 1 second +[\d.]+ requests\/s, 20 to a task, /,
  );
  const report = await load.end();
  await asleep();
  console.log({ ...report, upMs, times: undefined });
  expect(report.bad).toEqual([]);
  expect(report.good).toBe(report.asked);
});

test('what cannot be woken is refused in the end, and says why', async () => {
  await asleep();
  const broken = service(toZero.replace('hold: 20s', 'hold: 3s'), 'registry:5000/nothing:1');
  const path = cluster.compose('broken.yaml', broken);
  expect((await cluster.gantry('apply', '-d', '-f', path)).code).toBe(0);
  const began = performance.now();
  await expect(fromOutside(2)).rejects.toThrow(/refused|reset|curl/i);
  expect(performance.now() - began).toBeLessThan(8_000);
  await eventually(async () => {
    const { stdout } = await cluster.gantry('why', 'who.1');
    return stdout.includes('nothing') && stdout.includes('a request arrived at h2');
  });
});
