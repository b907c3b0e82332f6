/** A project of several Compose files, as a user has it: found from below, made of others, changed by profiles and env files. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { startCli } from '#test/support/cli.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

vi.setConfig({ testTimeout: 90_000 });
let cluster: Cluster;
let root = '';
beforeAll(async () => {
  cluster = await startCluster();
  root = dirname(cluster.compose('shop.txt', ''));
  for (const [path, text] of Object.entries(files)) write(path, text);
});
afterAll(() => cluster?.close());

const files = {
  'shop/compose.yaml': `
include: [../lib/cache/compose.yaml]
services:
  web:
    extends: { file: base/common.yaml, service: hello }
    environment: { COLOUR: "\${COLOUR:?which colour}", PROJECT: "\${COMPOSE_PROJECT_NAME}" }
    deploy: { replicas: 2 }
  debug:
    extends: web
    profiles: [debug]
    deploy: { replicas: 1 }
`,
  'shop/compose.override.yaml': 'services: { web: { environment: [LAYER=override], stop_grace_period: 1s } }',
  'shop/.env': "COLOUR='dark blue' # of the sea\n",
  'shop/base/common.yaml':
    'services: { hello: { image: "registry:5000/hello:1", env_file: common.env, stop_grace_period: 2s, environment: { LAYER: base, COLOUR: none } } }',
  'shop/base/common.env': 'export FROM="base ${COLOUR}"\n',
  'shop/deep/readme': '',
  'lib/cache/compose.yaml': `
services:
  cache:
    image: registry:5000/hello:1
    stop_grace_period: 1s
    environment: ["SIZE=\${SIZE}", "COLOUR=\${COLOUR}"]
    volumes: [data:/data]
volumes: { data: }
`,
  'lib/cache/.env': 'SIZE=3\nCOLOUR=of the cache\n',
};

function write(path: string, text: string): void {
  mkdirSync(dirname(join(root, path)), { recursive: true });
  writeFileSync(join(root, path), text);
}

const gantry = (directory: string, ...args: string[]) =>
  startCli({ directory: join(root, directory), socket: cluster.cli.env.GANTRY_SOCKET! }, args).end;

/** Variables of a running task. */
const variables = (task: string) =>
  eventually(async () => {
    const { code, stdout, stderr } = await cluster.gantry('exec', task, 'env');
    if (code !== 0) throw new Error(stderr);
    return Object.fromEntries(stdout.split('\n').map((line) => line.split(/=(.*)/s).slice(0, 2))) as Record<
      string,
      string
    >;
  });

test('is found from a directory below, and runs as all of its files say together', async () => {
  const { code, stderr, stdout } = await gantry('shop/deep', 'apply');
  expect(`${code} ${stderr}`).toBe('0 ');
  expect(stdout).not.toContain('shop/debug');
  await cluster.settled('shop/web', 2);
  await cluster.settled('shop/cache', 1);
  expect(await variables('shop/web.1')).toMatchObject({
    COLOUR: 'dark blue',
    FROM: 'base dark blue',
    LAYER: 'override',
    PROJECT: 'shop',
  });
  expect(await variables('shop/cache.1')).toMatchObject({ SIZE: '3', COLOUR: 'dark blue' });
  const { spec } = await cluster.json<{ spec: { template: { container: object } } }>('inspect', 'shop/web');
  expect(spec.template.container).toMatchObject({ stopGracePeriodMs: 1_000 });
});

test('has more services with a profile, which stay when it is not enabled', async () => {
  const before = (await cluster.tasks('shop/web')).map(({ id }) => id);
  expect((await gantry('shop', 'apply', '--profile', 'debug')).code).toBe(0);
  await cluster.settled('shop/debug', 1);
  expect(await variables('shop/debug.1')).toMatchObject({ LAYER: 'base' });
  const pruned = await gantry('shop', 'apply', '--prune');
  expect(pruned.stdout).toContain('its profiles are not enabled: it stays as it is');
  await cluster.settled('shop/debug', 1);
  expect((await cluster.tasks('shop/web')).map(({ id }) => id)).toEqual(before);
});

test('takes its variables from other env files, and its files from where they are named', async () => {
  write('red.env', 'COLOUR=red\n');
  write('more.yaml', 'services: { web: { environment: { LAYER: !reset null, MORE: "${COLOUR}${COLOUR}" } } }\n');
  const args = ['-f', 'shop/compose.yaml', '-f', 'more.yaml', '--env-file', 'red.env'];
  const planned = await gantry('.', 'plan', ...args);
  expect(planned.stdout).toMatch(/~ update shop\/web\n(.*\n)*? {4}environment: .*COLOUR changed/);
  const { code, stdout } = await gantry('.', 'apply', ...args);
  expect(`${code} ${stdout}`).toMatch(/^0 /);
  const inside = await eventually(async () => {
    const found = await variables('shop/web.1');
    if (found.COLOUR !== 'red') throw new Error(JSON.stringify(found));
    return found;
  });
  expect(inside).toMatchObject({ MORE: 'redred', FROM: 'base red' });
  expect(inside.LAYER).toBeUndefined();
});

test('says what is wrong in every file at its place, as it is seen from here, and changes nothing', async () => {
  const before = (await cluster.tasks()).map(({ id }) => id);
  write('lib/cache/compose.yaml', 'services:\n  cache:\n    image: registry:5000/hello:1\n    memory: 1g\n');
  write('shop/compose.override.yaml', 'services:\n  web:\n    tty: maybe\n');
  const { code, stderr } = await gantry('shop/deep', 'apply');
  expect(code).toBe(2);
  expect(stderr).toContain('../../lib/cache/compose.yaml:4:5 services.cache.memory: unknown key "memory"');
  expect(stderr).toContain('../compose.override.yaml:3:10 services.web.tty: "maybe" is not true or false');
  expect(stderr).toContain('2 errors; nothing was changed');
  expect((await cluster.tasks()).map(({ id }) => id)).toEqual(before);
});
