/** Users keep asking by every ingress node while services are scaled, nodes drained and agents killed: none of them notices anything. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { worldAddress } from '#node-agent/sandbox/topology.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { startLoad } from '#test/support/load.ts';
import { machineNode } from '#test/support/machine-node.ts';

const targets = [1, 2, 3].map((number) => `10.90.0.${number}:18080`);
let cluster: Cluster;

/** Answers with the address of who asks after a moment, keeps connections, and ends at once when it is told to: all care is ours. */
const program = `
  const server = require('node:http').createServer((request, answer) => {
    setTimeout(() => answer.end(request.socket.remoteAddress + '\\n'), Math.random() * 30);
  });
  server.keepAliveTimeout = 0;
  server.listen({ port: 8080, host: '0.0.0.0', backlog: 1024 });
  process.on('SIGTERM', () => process.exit(0));`;

const service = (replicas: number) => `
name: load
services:
  who:
    image: registry:5000/hello:1
    entrypoint: ["/node", "-e", ${JSON.stringify(program)}]
    ports: ["18080:8080"]
    volumes: ${JSON.stringify(machineNode)}
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]
      interval: 1s
      start_interval: 100ms
      start_period: 10s
    deploy: { replicas: ${replicas} }
`;

beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

/** Kills the agent, which its host starts again; what runs on the host goes on. */
const killAgent = (host: string) =>
  cluster.sandbox.run(host, ['sh', '-c', "kill -9 $(pgrep -f '[n]ode-agent/main.ts')"]);

async function succeeds(...args: string[]): Promise<void> {
  const { code, stdout, stderr } = await cluster.gantry(...args);
  expect(code, `gantry ${args.join(' ')}: ${stdout}${stderr}`).toBe(0);
}

test('two hundred requests a second by three hosts all succeed while the service is scaled, hosts are drained and agents killed', async () => {
  await cluster.apply(service(3));
  await cluster.settled('who', 3);
  for (const target of targets) await eventually(() => cluster.http(`http://${target}/`));
  const load = startLoad(cluster, { targets, expected: worldAddress, rate: 200 });
  const scales = [6, 3, 5, 2, 6, 4, 3, 6, 3, 5];
  for (const [round, replicas] of scales.entries()) {
    // A third of the changes come while an agent is away: its kernel goes on sending by the table it has.
    const killed = round % 3 === 1 ? `h${1 + (round % 2)}` : undefined;
    if (killed) await killAgent(killed);
    await succeeds('scale', `who=${replicas}`);
    await cluster.settled('who', replicas);
    if (killed) await cluster.nodeIs(killed, 'ready');
    if (round % 2 === 1) continue;
    const drained = `h${1 + ((round / 2) % 3)}`;
    await succeeds('drain', drained);
    await cluster.settled('who', replicas);
    await succeeds('activate', drained);
  }
  const report = await load.end();
  console.log(report);
  // A machine that is starved past all limits loses requests: the control plane says for which node it waited in vain.
  const givenUp = "grep 'may still send' /var/log/control-plane.log || echo 'no node was waited for in vain'";
  if (report.bad.length > 0) console.log(await cluster.sandbox.run('m1', ['sh', '-c', givenUp]));
  expect(report.bad).toEqual([]);
  expect(report.good).toBe(report.asked);
  expect(report.asked).toBeGreaterThan(3_000);
  // Both kinds were there to be broken.
  expect(report.reused).toBeGreaterThan(report.asked / 4);
  expect(report.opened).toBeGreaterThan(report.asked / 3);
}, 240_000);
