/** Configs and secrets as a user has them: edited, rolled, rolled back, kept through power failures, and seen by nobody else. */
import { execFileSync } from 'node:child_process';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { hostLayout } from '#node-agent/sandbox/layout.ts';
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

vi.setConfig({ testTimeout: 90_000 });
let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

const [first, second, byHand] = ['first', 'second', 'hand'].map((word) => `${word}-${newId(systemRandom)}`) as [
  string,
  string,
  string,
];
const file = `
name: shop
services:
  web:
    image: registry:5000/hello:1
    stop_grace_period: 1s
    read_only: true
    deploy: { replicas: 3, update_config: { parallelism: 0 } }
    secrets:
      - db
      - { source: db, target: /etc/app/db, uid: "1234", gid: "99", mode: 0400 }
    configs: [{ source: app, target: /etc/app/app.conf }]
secrets: { db: { file: ./db.key } }
configs: { app: { content: "greeting=hello\\n" } }
`;

async function apply(key: string): Promise<string> {
  cluster.compose('db.key', key);
  const { code, stdout, stderr } = await cluster.gantry('apply', '-f', cluster.compose('shop.yaml', file));
  if (code !== 0) throw new Error(stdout + stderr);
  return stdout + stderr;
}
async function shell(task: string, script: string): Promise<string> {
  const { code, stdout, stderr } = await cluster.gantry('exec', task, 'sh', '-c', script);
  if (code !== 0) throw new Error(stderr);
  return stdout.trim();
}
const read = async (service: string, count: number) => {
  const tasks = await cluster.settled(service, count);
  return Promise.all(tasks.map(({ slot }) => shell(`${service}.${slot}`, 'cat /run/secrets/db')));
};
const pids = async () => (await cluster.settled('web', 3)).map(({ pid }) => pid).sort();

test('a secret is a read-only file in memory in every task, with the owner and mode asked for', async () => {
  expect(await apply(first)).toContain('+ create secret shop_db');
  expect(await read('web', 3)).toEqual([first, first, first]);
  expect(await shell('web.1', 'stat -c "%a %u:%g" /run/secrets/db /etc/app/db; cat /etc/app/app.conf')).toBe(
    '444 0:0\n400 1234:99\ngreeting=hello',
  );
  expect(await shell('web.1', 'grep -c "^gantry-documents .* tmpfs ro,nosuid,nodev" /proc/mounts')).toBe('3');
  expect(await shell('web.1', 'echo x > /run/secrets/db || echo refused')).toBe('refused');
});

test('another content rolls the service, the same one does nothing, and a rollback has the old one again', async () => {
  const before = await pids();
  await apply(first);
  expect(await pids()).toEqual(before);
  const said = await apply(second);
  expect(said).toContain('secret shop_db at /run/secrets/db: another content');
  expect(await read('web', 3)).toEqual([second, second, second]);
  expect((await cluster.gantry('rollback', 'web')).code).toBe(0);
  expect(await read('web', 3)).toEqual([first, first, first]);
});

test('one made by hand is given another content, and its service has it at once', async () => {
  expect((await cluster.feed(byHand, 'secret', 'create', 'token')).stdout).toContain('created secret token');
  await cluster.apply(`
name: tools
services:
  bot: { image: "registry:5000/hello:1", stop_grace_period: 1s, secrets: [{ source: token, target: db }] }
secrets: { token: { external: true } }
`);
  expect(await read('tools/bot', 1)).toEqual([byHand]);
  const changed = await cluster.feed(`${byHand}2`, 'secret', 'create', 'token');
  expect(changed.stdout).toContain('changed secret token; tools/bot rolls to it');
  expect(changed.code).toBe(0);
  expect(await read('tools/bot', 1)).toEqual([`${byHand}2`]);
  const refused = await cluster.gantry('secret', 'rm', 'token');
  expect(refused.stderr).toContain('secret token is in use by tools/bot');
  expect(refused.code).not.toBe(0);
});

test('a host that lost power has them again with its tasks', async () => {
  await cluster.sandbox.act('kill', 'h1');
  await cluster.nodeIs('h1', 'down');
  expect(await read('web', 3)).toEqual([first, first, first]);
  await cluster.sandbox.act('start', 'h1');
  await cluster.nodeIs('h1', 'ready', 40_000);
  expect((await cluster.gantry('scale', 'web=6')).code).toBe(0);
  expect(new Set(await read('web', 6))).toEqual(new Set([first]));
  const hosts = (await cluster.settled('web', 6)).map(({ node }) => node);
  expect(hosts).toContain('h1');
});

test('nobody else sees them: no command, no event, no log, and no disk of any host, etcd’s included', async () => {
  const shown: string[] = [];
  for (const line of [
    ['inspect', 'web', '--json'],
    ['inspect', 'web.1', '--json'],
    ['ps', '-a', '--json'],
    ['events', '--json'],
    ['secret', 'ls', '--json'],
    ['secret', 'inspect', 'shop_db', '--json'],
    ['plan', '-f', cluster.compose('shop.yaml', file), '--json'],
  ])
    shown.push((await cluster.gantry(...line)).stdout);
  const base64 = [first, second, byHand].map((text) => Buffer.from(text).toString('base64').slice(0, 24));
  const onDisk = (text: string) => execFileSync('grep', ['-rlaF', '-D', 'skip', text, cluster.sandbox.layout.dir]);
  expect(onDisk('shop_db').toString()).toContain('etcd');
  for (const text of [first, second, byHand, ...base64]) {
    for (const output of shown) expect(output).not.toContain(text);
    expect(() => onDisk(text)).toThrow(expect.objectContaining({ status: 1 }));
  }
});

test('what was removed by mistake comes back: the same spec, the same data, the same content of its secrets', async () => {
  await cluster.apply(`
name: store
services:
  db:
    image: registry:5000/hello:1
    stop_grace_period: 1s
    x-protected: true
    volumes: ["data:/data"]
    ports: ["18090:8080"]
    secrets: [key]
volumes: { data: {} }
secrets: { key: { file: ./db.key } }
`);
  const [before] = await cluster.settled('db', 1);
  await shell('db.1', 'echo precious > /data/file');
  const refused = await cluster.gantry('rm', 'db');
  expect(refused.stderr).toContain('service store/db is protected');
  expect((await cluster.gantry('rm', 'db', '--yes-remove-protected', 'db')).code).toBe(0);
  expect(await cluster.json<unknown[]>('services', '-p', 'store')).toEqual([]);
  expect((await cluster.gantry('trash', 'ls')).stdout).toContain('store/db');

  await cluster.apply('name: other\nservices: { a: { image: "registry:5000/hello:1", ports: ["18090:8080"] } }');
  const taken = await cluster.gantry('undo', 'db');
  expect(taken.stderr).toContain('port 18090/tcp of service store/db is published by other/a now');
  expect((await cluster.gantry('rm', 'other/a')).code).toBe(0);

  const undone = await cluster.gantry('undo', 'db');
  expect(undone.stdout).toContain('brought back service store/db');
  const [after] = await cluster.settled('db', 1);
  expect(after!.node).toBe(before!.node);
  expect(await shell('db.1', 'cat /data/file')).toBe('precious');
  expect(await shell('db.1', 'cat /run/secrets/key')).toBe(second);
  await eventually(() => cluster.http('http://10.90.0.1:18090/'));

  expect((await cluster.gantry('rm', 'db', '--volumes', '--yes-remove-protected', 'db')).code).toBe(0);
  expect((await cluster.gantry('volume', 'ls')).stdout).toContain('nobody: in the trash, deleted in 23 hours');
  expect((await cluster.gantry('undo')).stdout).toContain('brought back service store/db, volume store_data');
  await cluster.settled('db', 1);
  expect(await shell('db.1', 'cat /data/file')).toBe('precious');

  expect((await cluster.gantry('rm', 'db', '--volumes', '--yes-remove-protected', 'db')).code).toBe(0);
  const place = hostLayout(cluster.sandbox.layout, before!.node).gantry;
  const find = () => execFileSync('find', [place, '-path', '*store_data*', '-name', 'file']).toString();
  expect(find()).not.toBe('');
  expect((await cluster.gantry('trash', 'empty')).code).toBe(0);
  await eventually(async () => (await cluster.json<unknown[]>('volume', 'ls')).length === 0);
  expect(find()).toBe('');
});

test('what nothing refers to any more is gone from the store', async () => {
  expect((await cluster.gantry('rm', 'web', 'bot')).code).toBe(0);
  expect((await cluster.gantry('trash', 'empty')).code).toBe(0);
  await eventually(
    async () => {
      const left = await cluster.json<{ name: string }[]>('secret', 'ls');
      expect(left.map(({ name }) => name)).toEqual(['token']);
      return true;
    },
    { everyMs: 100 },
  );
  expect((await cluster.gantry('secret', 'rm', 'token')).code).toBe(0);
});
