/** Every certificate there was ends, and nobody notices: nodes, managers, etcd and NATS have the next ones by then. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { systemClock } from '#proto/kernel/clock.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster(1, { settings: { m1: { GANTRY_CERTIFICATE_LIFE: '30s' } } });
});
afterAll(() => cluster?.close());

const pki = '/var/lib/gantry/control-plane/pki';
const files = [
  ['h1', '/var/lib/gantry/agent/identity/cert.pem'],
  ...['etcd', 'nats', 'server', 'client'].map((holder) => ['m1', `${pki}/${holder}/cert.pem`] as const),
] as const;
const on = (host: string, script: string) => cluster.sandbox.run(host, ['sh', '-c', script]);

/** Wall clock, ms. */
async function lastEnd(): Promise<number> {
  const ends = files.map(([host, file]) => on(host, `openssl x509 -noout -enddate -in ${file}`));
  return Math.max(...(await Promise.all(ends)).map((text) => Date.parse(text.replace('notAfter=', ''))));
}

test('all parts connect again with the certificates that have come since', async () => {
  await cluster.apply('name: app\nservices: { app: { image: "registry:5000/hello:1" } }\n');
  const [before] = await cluster.settled('app', 1);
  const ended = await lastEnd();
  expect(ended - systemClock.now()).toBeLessThan(31_000);
  await eventually(() => systemClock.now() > ended, { timeoutMs: 40_000, everyMs: 200 });
  await on('m1', "pkill -9 -x etcd; pkill -9 -x nats-server; kill -9 $(pgrep -f '[c]ontrol-plane/main.ts run')");
  await on('h1', "kill -9 $(pgrep -f '[n]ode-agent/main.ts')");
  await cluster.nodeIs('h1', 'ready', 30_000);
  const [after] = await cluster.settled('app', 1);
  expect({ id: after?.id, pid: after?.pid }).toEqual({ id: before?.id, pid: before?.pid });
  expect((await cluster.gantry('scale', 'app=2')).code).toBe(0);
  await eventually(async () => expect((await cluster.gantry('logs', 'app')).stdout).toContain('app.2'));
});
