/** Where images come from: a registry with a login, an archive on a node's disk. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { holdDown } from '#test/support/hold-down.ts';

const cli = join(import.meta.dirname, '../../control-plane/cli/main.ts');
const login = { username: 'reader', password: 'correct horse' } as const;
const registry = '10.90.0.250:5001';

let cluster: Cluster;
let shared: string;
beforeAll(async () => {
  cluster = await startCluster(2);
  shared = join(cluster.sandbox.layout.dir, 'shared');
  mkdirSync(shared);
});
afterAll(() => cluster?.close());

const shell = (host: string, line: string) => cluster.sandbox.run(host, ['sh', '-c', line]);
const service = (name: string, image: string, more = '') =>
  `name: ${name}\nservices: { ${name}: { image: "${image}"${more} } }\n`;
const onBoth = ', deploy: { mode: global }';

async function fails(text: string): Promise<string> {
  const { code, stdout, stderr } = await cluster.gantry('apply', '-f', cluster.compose('fails.yaml', text));
  expect(code).toBe(1);
  return stdout + stderr;
}

/** A registry on the manager that wants `login`, with hello:1 as private/hello:1. */
async function privateRegistry(): Promise<void> {
  const { username, password } = login;
  writeFileSync(
    join(shared, 'registry.yml'),
    `version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: ${shared}/registry}}
http: {addr: ':5001'}
auth: {htpasswd: {realm: private, path: ${shared}/htpasswd}}
`,
  );
  await shell('m1', `htpasswd -Bbc ${shared}/htpasswd ${username} '${password}' 2>&1`);
  await shell('m1', `setsid docker-registry serve ${shared}/registry.yml > ${shared}/registry.log 2>&1 < /dev/null &`);
  const copy = `skopeo copy --src-tls-verify=false --dest-tls-verify=false --dest-creds '${username}:${password}'`;
  await eventually(() => shell('m1', `${copy} docker://registry:5000/hello:1 docker://${registry}/private/hello:1`));
}

describe('a registry that wants a login', () => {
  const image = `${registry}/private/hello:1`;
  beforeAll(privateRegistry);

  test('refuses without one, and the reason names what to do', async () => {
    expect(await fails(service('nobody', image))).toMatch(
      /10\.90\.0\.250:5001 wants a login for private\/hello.*gantry login 10\.90\.0\.250:5001/,
    );
  });

  test('refuses a wrong one', async () => {
    const args = ['login', registry, '--username', login.username, '--password-stdin'];
    expect((await cluster.feed('wrong\n', ...args)).code).toBe(0);
    expect(await fails(service('stranger', image))).toMatch(/10\.90\.0\.250:5001 refuses the login of reader/);
  });

  test('gives its images to every node after gantry login', async () => {
    const done = await cluster.feed(`${login.password}\n`, 'login', registry, '-u', login.username, '--password-stdin');
    expect(done).toMatchObject({ code: 0, stdout: expect.stringContaining(login.username) });
    await cluster.apply(service('reader', image, onBoth));
    expect((await cluster.settled('reader', 2)).map(({ node }) => node).sort()).toEqual(['h1', 'h2']);
    // What was refused before goes on by itself.
    await cluster.settled('nobody', 1);
    const told = JSON.stringify([await cluster.gantry('inspect', 'reader'), await cluster.gantry('events')]);
    expect(told).not.toContain(login.password);
    expect((await cluster.gantry('rm', 'reader', 'nobody', 'stranger')).code).toBe(0);
  });
});

describe('an archive on a node', () => {
  test('is imported by its names, and its tasks need no registry', async () => {
    const copy = 'skopeo copy --src-tls-verify=false docker://registry:5000/hello:2';
    await shell('h1', `${copy} docker-archive:${shared}/docker.tar:local/kept:7`);
    await shell('h1', `${copy} oci-archive:${shared}/oci.tar:registry:5000/offline:1`);
    const named = await cluster.sandbox.run('h1', [
      process.execPath,
      cli,
      'agent',
      'import',
      `${shared}/docker.tar`,
      `${shared}/oci.tar`,
    ]);
    expect(named).toBe('docker.io/local/kept:7\nregistry:5000/offline:1\n');
    const away = await holdDown(cluster.sandbox, 'm1', '-x docker-registry');
    const here = ', deploy: { placement: { constraints: ["node.hostname == h1"] } }';
    await cluster.apply(service('kept', 'local/kept:7', here));
    await cluster.apply(service('offline', 'registry:5000/offline:1', here));
    await away.release();
    const [task] = await cluster.running('kept');
    const answer = await eventually(() => cluster.http(`http://${task!.address}:8080/`, 'h1'));
    expect(answer).toContain('version 2');
  });

  test('that is none is refused in words', async () => {
    writeFileSync(join(shared, 'none.tar'), 'no archive at all');
    const line = `${process.execPath} ${cli} agent import ${shared}/none.tar 2>&1; echo "code $?"`;
    expect(await shell('h1', line)).toMatch(/none\.tar.*docker save.*code 1\n$/s);
    expect(await shell('h1', `${process.execPath} ${cli} agent import ${shared}/gone.tar 2>&1 || true`)).toMatch(
      /gone\.tar.*not/,
    );
  });
});
