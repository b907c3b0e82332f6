/** A whole cluster in one file: put back in place while its hosts live on, and on other hosts, with other addresses and fewer of them. */
import { cpSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hostLayout } from '#node-agent/sandbox/layout.ts';
import { type Cluster, startCluster, type TaskRow } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

const place = mkdtempSync(join(tmpdir(), 'gantry-backup-'));
const file = join(place, 'cluster.backup');
const passphraseFile = join(place, 'passphrase');
const encrypted = ['--passphrase-file', passphraseFile];

let cluster: Cluster;
beforeAll(async () => {
  writeFileSync(passphraseFile, 'a long and quiet passphrase\n');
  cluster = await startCluster(3);
  await cluster.feed('s3cret', 'secret', 'create', 'key', '-');
  await cluster.apply(`
name: shop
services:
  web:
    image: registry:5000/hello:1
    stop_grace_period: 1s
    secrets: [key]
    deploy: { replicas: 3 }
  data:
    image: registry:5000/hello:1
    stop_grace_period: 1s
    volumes: ["data:/data"]
volumes: { data: {} }
secrets: { key: { external: true } }
`);
});
afterAll(async () => {
  await cluster?.close();
  rmSync(place, { recursive: true, force: true });
});

const managerData = (of: Cluster) => join(hostLayout(of.sandbox.layout, 'm1').gantry, 'control-plane');
const restoreInto = (of: Cluster, ...more: string[]) =>
  of.gantry(
    ...['cluster', 'restore', file, '--data', managerData(of), '--name', 'm1', '--advertise', '10.90.0.250'],
    ...[...encrypted, ...more],
  );
const onManager = (script: string) => cluster.sandbox.run('m1', ['sh', '-c', script]);
/** With the control plane stopped, as systemd would: what starts it again waits meanwhile. */
async function restoreBeneath(...more: string[]) {
  const keeper = (
    await onManager(
      "pid=$(pgrep -f '[c]ontrol-plane/main.ts run') && ps -o ppid= -p $pid | tr -d ' \\n' && kill -STOP $(ps -o ppid= -p $pid) && kill -9 $pid",
    )
  ).trim();
  try {
    return await restoreInto(cluster, ...more);
  } finally {
    await onManager(`kill -CONT ${keeper}`);
  }
}
const info = (of: Cluster) => of.json<{ epoch: number; cluster: { id: string; incarnation: number } }>('info');
const runs = ({ id, pid, node }: TaskRow) => ({ id, pid, node });
const secretOf = async (of: Cluster, task: string) => (await of.gantry('exec', task, 'cat', '/run/secrets/key')).stdout;

describe('a backup', () => {
  test('is written whole, for its owner alone, and told from a damaged one', async () => {
    const made = await cluster.gantry('cluster', 'backup', file, ...encrypted);
    expect(made).toMatchObject({ code: 0, stderr: '', stdout: expect.stringMatching(/is whole: cluster .* records/) });
    expect(statSync(file).mode & 0o777).toBe(0o600);
    expect(await cluster.gantry('cluster', 'backup', file, '--check')).toMatchObject({
      code: 2,
      stderr: expect.stringMatching(/encrypted.*--passphrase-file/s),
    });
    const open = await cluster.gantry('cluster', 'backup', join(place, 'open.backup'));
    expect(open).toMatchObject({ code: 0, stderr: expect.stringContaining('warning: without --passphrase-file') });
    const { tables } = await cluster.json<{ tables: object }>('cluster', 'backup', file, '--check', ...encrypted);
    expect(tables).toMatchObject({ service: 2, node: 3, cluster: 1, volume: 1, content: 1 });
  });

  test('is not put over a cluster that lives there', async () => {
    const before = (await cluster.settled('web', 3)).map(runs);
    const running = { code: 1, stderr: expect.stringMatching(/a control plane is at work in .*stop it first/s) };
    expect(await restoreInto(cluster)).toMatchObject(running);
    expect(await restoreInto(cluster, '--force')).toMatchObject(running);
    expect((await restoreBeneath()).code).toBe(0);
    const log = () => cluster.sandbox.run('m1', ['tail', '-n', '3', '/var/log/control-plane.log']);
    await eventually(async () => (await log()).includes('etcd holds a cluster already'));
    rmSync(join(managerData(cluster), 'restore.json'));
    expect(await eventually(async () => (await cluster.settled('web', 3)).map(runs))).toEqual(before);
  });

  test('put back in place: what ran then and runs now is left alone, what came since ends, and a newer leader is obeyed', async () => {
    const before = (await cluster.tasks()).map(runs);
    await cluster.apply(
      'name: late\nservices: { late: { image: "registry:5000/hello:1", deploy: { replicas: 2 } } }\n',
    );
    const late = await cluster.settled('late', 2);
    // Nodes trust the new CA alone from here on, and the backup has the old one.
    expect((await cluster.gantry('ca', 'rotate')).code).toBe(0);
    const restored = { code: 0, stdout: expect.stringContaining("newer than the backup's, and is kept") };
    expect(await restoreBeneath('--force')).toMatchObject(restored);
    const now = await eventually(async () => {
      const { epoch, cluster: restored } = await info(cluster);
      expect(restored.incarnation).toBe(1);
      return epoch;
    });
    expect(now).toBeGreaterThan(1_000_000_000);
    await eventually(async () => expect((await cluster.tasks()).map(runs)).toEqual(before));
    for (const node of ['h1', 'h2', 'h3']) await cluster.nodeIs(node, 'ready');
    for (const { node, pid } of late)
      await eventually(async () => {
        const alive = await cluster.sandbox.run(node, ['sh', '-c', `test -e /proc/${pid} && echo alive || echo gone`]);
        return alive === 'gone\n';
      });
    expect((await cluster.tasks()).map(runs)).toEqual(before);
    expect(await secretOf(cluster, 'web.1')).toBe('s3cret');
  });
});

test('F36: the disk of a node as it was yesterday: nothing of yesterday runs, and what is wanted today does', async () => {
  await cluster.apply('name: old\nservices: { old: { image: "registry:5000/hello:1", deploy: { mode: global } } }\n');
  await cluster.settled('old', 3);
  const { gantry: disk } = hostLayout(cluster.sandbox.layout, 'h1');
  cpSync(join(disk, 'agent'), join(place, 'yesterday'), { recursive: true });
  expect((await cluster.gantry('rm', 'old')).code).toBe(0);
  await cluster.apply('name: new\nservices: { new: { image: "registry:5000/hello:2", deploy: { mode: global } } }\n');
  await cluster.settled('new', 3);
  await cluster.sandbox.act('kill', 'h1');
  rmSync(join(disk, 'agent'), { recursive: true });
  cpSync(join(place, 'yesterday'), join(disk, 'agent'), { recursive: true });
  await cluster.sandbox.act('start', 'h1');
  await cluster.settled('new', 3);
  // What else ran on h1 begins again there too, in its own time.
  const others = async () =>
    (await cluster.tasks()).filter((task) => !(task.state === 'running' && task.wanted === 'running'));
  await eventually(async () => expect(await others()).toEqual([]));
  const wanted = (await cluster.tasks()).filter(({ node }) => node === 'h1').length;
  const containers = () => cluster.sandbox.run('h1', ['sh', '-c', 'pgrep -c conmon || true']);
  await eventually(async () => Number(await containers()) === wanted);
});

test('on two new hosts at other addresses the cluster of three goes on; what lies on a disk that is not there says so', async () => {
  const home = (await cluster.settled('data', 1))[0]!.node;
  const before = await info(cluster);
  expect((await cluster.gantry('cluster', 'backup', file, ...encrypted)).code).toBe(0);
  await cluster.close();
  cluster = await startCluster(2, { layout: 'routed' }, async (fresh) => {
    expect(await restoreInto(fresh)).toMatchObject({ code: 0 });
  });
  const after = await info(cluster);
  expect(after.cluster).toMatchObject({ id: before.cluster.id, incarnation: 2 });
  expect(after.epoch).toBeGreaterThan(before.epoch);
  await cluster.nodeIs('h3', 'down');
  const web = await cluster.settled('web', 3);
  // Whichever of the two was there first.
  for (const { node } of web) expect(['h1', 'h2']).toContain(node);
  expect(await secretOf(cluster, 'web.1')).toBe('s3cret');
  const nodes = await cluster.nodes();
  expect(nodes.map(({ name, state }) => `${name} ${state}`).sort()).toEqual(['h1 ready', 'h2 ready', 'h3 down']);
  await eventually(async () => {
    const tasks = await cluster.tasks('data');
    expect(tasks).toEqual([expect.objectContaining({ state: 'pending', node: '' })]);
    expect(tasks[0]!.message).toMatch(
      new RegExp(`volume shop_data (was|is) on ${home}, which is (no longer a member|down)`),
    );
    return true;
  });
});
