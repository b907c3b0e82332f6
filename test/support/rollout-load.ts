/** Users keep asking by every ingress node while a service is updated, rolled back, given an image that never becomes healthy, and scaled. */
import { worldAddress } from '#node-agent/sandbox/topology.ts';
import type { Cluster, Ran } from './cluster.ts';
import { eventually } from './eventually.ts';
import { startLoad, type Traced } from './load.ts';
import { machineNode } from './machine-node.ts';

const targets = [1, 2, 3].map((number) => `10.90.0.${number}:18090`);
const replicas = 4;

/** What happens meanwhile, in this order: an update, a scaling and a rollback by turns, the bad image in the middle. */
export interface Happenings {
  readonly updates: number;
  readonly rollbacks: number;
  readonly badImages: number;
  readonly scalings: number;
}

export interface RolloutReport {
  readonly load: Traced;
  /** From the last of the bad image's health checks until all old tasks serve alone again. */
  readonly revertedAfterMs: readonly number[];
  readonly tookMs: number;
}

/** Answers after a moment with the address of who asks, keeps connections, and ends at once when it is told to: all care is ours. With SICK it never becomes healthy. */
const program = `
  const sick = process.env.SICK === 'yes';
  const server = require('node:http').createServer((request, answer) => {
    answer.statusCode = sick ? 500 : 200;
    setTimeout(() => answer.end(request.socket.remoteAddress + '\\n'), Math.random() * 30);
  });
  server.keepAliveTimeout = 0;
  server.listen({ port: 8080, host: '0.0.0.0', backlog: 1024 });
  process.on('SIGTERM', () => process.exit(0));`;

/** Checked every second, with two failures allowed after a second of grace: a sick task is given up after three seconds. */
const giveUpMs = 3_000;
const monitorMs = 1_000;
const service = (version: number, order: string, sick = false) => `
name: rollout
services:
  who:
    image: registry:5000/hello:1
    entrypoint: ["/node", "-e", ${JSON.stringify(program)}]
    ports: ["18090:8080"]
    environment: { VERSION: "${version}", SICK: "${sick ? 'yes' : 'no'}" }
    volumes: ${JSON.stringify(machineNode)}
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/"]
      interval: 1s
      start_interval: 100ms
      start_period: 1s
      retries: 2
    deploy:
      replicas: ${replicas}
      update_config: { parallelism: 2, order: ${order}, monitor: ${monitorMs}ms, failure_action: rollback }
`;

/** The load is as heavy as `rate` requests a second. `log` is told what happens. */
export async function rolloutUnderLoad(
  cluster: Cluster,
  happenings: Happenings,
  { rate = 200, log = () => {} }: { readonly rate?: number; readonly log?: (line: string) => void } = {},
): Promise<RolloutReport> {
  const beganAt = performance.now();
  let version = 1;
  const orderOf = (version: number) => (version % 2 === 0 ? 'start-first' : 'stop-first');
  const apply = (sick = false) => {
    const path = cluster.compose('rollout.yaml', service(version, sick ? 'start-first' : orderOf(version), sick));
    return cluster.gantry('apply', '-f', path);
  };
  succeeded(await apply());
  for (const target of targets) await eventually(() => cluster.http(`http://${target}/`));
  const load = startLoad(cluster, { targets, expected: worldAddress, rate });
  const revertedAfterMs: number[] = [];
  const { updates, rollbacks, badImages, scalings } = happenings;
  for (let round = 1; round <= updates; round++) {
    version++;
    log(`update ${round}: ${orderOf(version)}`);
    succeeded(await apply());
    if (isDue(round, scalings, updates)) {
      for (const count of [replicas + 2, replicas]) {
        log(`scale to ${count}`);
        succeeded(await cluster.gantry('scale', `who=${count}`));
      }
    }
    if (isDue(round, rollbacks, updates)) {
      log('rollback');
      succeeded(await cluster.gantry('rollback', 'who'));
    }
    if (isDue(round, badImages, updates)) {
      version++;
      const ms = await reverted(cluster, () => apply(true));
      log(`an image that never becomes healthy: reverted ${Math.round(ms)} ms after its window`);
      revertedAfterMs.push(ms);
    }
  }
  await cluster.settled('who', replicas);
  return { load: await load.end(), revertedAfterMs, tookMs: Math.round(performance.now() - beganAt) };
}

/** True in `count` of `all` rounds, evenly spread. */
function isDue(round: number, count: number, all: number): boolean {
  return Math.floor((round * count) / all) > Math.floor(((round - 1) * count) / all);
}

/** How long after the window in which it could have become healthy all is as before. */
async function reverted(cluster: Cluster, apply: () => Promise<Ran>): Promise<number> {
  const beganAt = performance.now();
  const { code, stdout, stderr } = await apply();
  if (code !== 1 || !`${stdout}${stderr}`.includes('unhealthy'))
    throw new Error(`a bad image was applied with ${code}: ${stdout}${stderr}`);
  await cluster.settled('who', replicas);
  const rows = await cluster.running('who');
  if (rows.some(({ health }) => health !== 'healthy')) throw new Error('a sick task is left');
  return performance.now() - beganAt - giveUpMs - monitorMs;
}

function succeeded({ code, stdout, stderr }: Ran): void {
  if (code !== 0) throw new Error(`a command ended with ${code}: ${stdout}${stderr}`);
}
