/** A backup of so many managers put back on another number of them, at other addresses: it goes on, and any of several may then fail. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { hostLayout } from '#node-agent/sandbox/layout.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

const place = mkdtempSync(join(tmpdir(), 'gantry-backup-'));
let cluster: Cluster | undefined;
afterAll(async () => {
  await cluster?.close();
  rmSync(place, { recursive: true, force: true });
});

interface Info {
  readonly leader: string;
  readonly addresses: readonly string[];
  readonly cluster: { readonly id: string; readonly incarnation: number };
}
const infoOf = (of: Cluster) => of.json<Info>('info');

/** The cluster as it is, in a file. */
async function saved(of: Cluster, name: string): Promise<string> {
  const file = join(place, name);
  expect((await of.gantry('cluster', 'backup', file)).code).toBe(0);
  return file;
}

/** Hosts of their own, on which the file's cluster begins. */
function begun(file: string, managers: number, layout: 'flat' | 'routed', told = ''): Promise<Cluster> {
  return startCluster(1, { managers, layout }, async (fresh) => {
    const data = join(hostLayout(fresh.sandbox.layout, 'm1').gantry, 'control-plane');
    const where = ['--data', data, '--name', 'm1', '--advertise', '10.90.0.250'];
    const { code, stdout } = await fresh.gantry('cluster', 'restore', file, ...where);
    expect(code).toBe(0);
    expect(stdout).toContain(told);
  });
}

test('one manager becomes three, three become one, and one becomes five', async () => {
  cluster = await startCluster(1);
  const wishes = cluster.compose(
    'app.yaml',
    `
name: app
services:
  app: { image: "registry:5000/hello:1", deploy: { replicas: 2 } }
  job: { image: "registry:5000/hello:1", deploy: { mode: replicated-job } }
`,
  );
  // The job goes on and on: nobody waits for its end.
  expect((await cluster.gantry('apply', '-f', wishes, '--detach')).code).toBe(0);
  await cluster.settled('app', 2, 60_000);
  await eventually(async () => (await cluster!.tasks('job')).some(({ state }) => state === 'running'));
  const { id } = (await infoOf(cluster)).cluster;
  const one = await saved(cluster, 'one.backup');
  await cluster.close();

  cluster = await begun(one, 3, 'routed', 'may run again: app/job');
  await cluster.settled('app', 2, 60_000);
  const three = await infoOf(cluster);
  expect(three.cluster).toMatchObject({ id, incarnation: 1 });
  expect(three.addresses).toHaveLength(3);
  await cluster.sandbox.act('kill', three.leader);
  expect((await cluster.feed('s', 'secret', 'create', 'made-by-two', '-')).code).toBe(0);
  const file = await saved(cluster, 'three.backup');
  await cluster.close();

  cluster = await begun(file, 1, 'flat');
  await cluster.settled('app', 2, 60_000);
  expect((await infoOf(cluster)).cluster).toMatchObject({ id, incarnation: 2 });
  expect((await cluster.json<{ name: string }[]>('secret', 'ls')).map(({ name }) => name)).toContain('made-by-two');
  const again = await saved(cluster, 'again.backup');
  await cluster.close();

  cluster = await begun(again, 5, 'routed');
  await cluster.settled('app', 2, 60_000);
  const five = await infoOf(cluster);
  expect(five.cluster).toMatchObject({ id, incarnation: 3 });
  // Of five, two may go.
  const others = ['m1', 'm2', 'm3', 'm4', 'm5'].filter((name) => name !== five.leader);
  await Promise.all([five.leader, others[0]!].map((name) => cluster!.sandbox.act('kill', name)));
  expect((await cluster.feed('s', 'secret', 'create', 'made-by-three', '-')).code).toBe(0);
}, 600_000);
