/** Who is in: machines that join by hand with tokens good and bad, and nodes that are put out. */
import { existsSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { hostLayout } from '#node-agent/sandbox/layout.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

const agent = join(import.meta.dirname, '../../node-agent/main.ts');

let cluster: Cluster;
let machines: string;
beforeAll(async () => {
  cluster = await startCluster(2);
  machines = join(cluster.sandbox.layout.dir, 'machines');
});
afterAll(() => cluster?.close());

/** Starts an agent by hand with a data directory of its own; what it said and its exit code. One that joins is ended. */
async function joins(name: string, token: string): Promise<string> {
  const own = join(machines, name);
  const flags = `--name ${name} --advertise 10.90.0.1 --control-plane 10.90.0.250:7400 --metrics-port 0`;
  const places = `--data ${own}/data --run ${own}/run --containerd ${own}/none.sock`;
  const line = `timeout 5 ${process.execPath} ${agent} ${flags} ${places} --token ${token} 2>&1; echo "code $?"`;
  return cluster.sandbox.run('h1', ['sh', '-c', line]);
}

async function token(...args: string[]): Promise<{ readonly token: string; readonly id: string }> {
  const { code, stdout } = await cluster.gantry('token', 'create', ...args);
  expect(code).toBe(0);
  return { token: stdout.trim(), id: stdout.split('.')[2]! };
}

const names = async () => (await cluster.nodes()).map(({ name }) => name).sort();
const identity = async (host: string) =>
  JSON.parse(await cluster.sandbox.run(host, ['cat', '/var/lib/gantry/agent/identity/identity.json'])).nodeId as string;

describe('a join token', () => {
  test('makes a machine a member, once where it is for one', async () => {
    const { token: text } = await token('--uses', '1');
    expect(await joins('h8', text)).toContain('joined the cluster');
    expect(await names()).toContain('h8');
    expect(await joins('h9', text)).toMatch(/join token is not valid.*gantry token create.*code 1\n$/s);
    expect(await names()).not.toContain('h9');
    expect((await cluster.gantry('node', 'rm', 'h8', '--force')).code).toBe(0);
  });

  test('that was revoked, or is too old, is refused in words', async () => {
    const revoked = await token();
    expect((await cluster.gantry('token', 'revoke', revoked.id)).code).toBe(0);
    expect(await joins('late', revoked.token)).toMatch(/not valid.*code 1\n$/s);
    const old = await token('--for', '1s');
    const expiresAtMs = systemClock.now() + 1_000;
    await eventually(() => systemClock.now() > expiresAtMs);
    expect(await joins('old', old.token)).toMatch(/expired.*code 1\n$/s);
  });

  test('of another cluster is not shown to this one', async () => {
    const { token: text } = await token();
    const [form, , id, secret] = text.split('.');
    const strange = [form, 'A'.repeat(43), id, secret].join('.');
    expect(await joins('stray', strange)).toMatch(/not of the cluster that this join token is for.*code 1\n$/s);
    // It would have been a good one.
    expect(await joins('stray', text)).toContain('joined the cluster');
    expect((await cluster.gantry('node', 'rm', 'stray', '--force')).code).toBe(0);
  });

  test('does not give away the name of a node that is there', async () => {
    const { token: text } = await token();
    expect(await joins('h2', text)).toMatch(/a node named h2 is a member and ready.*code 1\n$/s);
    await cluster.nodeIs('h2', 'ready');
  });

  test('that is none is refused before anybody is asked', async () => {
    expect(await joins('odd', 'GANTRY-1.abc')).toMatch(/malformed.*code 1\n$/s);
    expect(existsSync(join(machines, 'odd/data/identity'))).toBe(false);
  });
});

describe('the name of a node that is down', () => {
  const places = () => hostLayout(cluster.sandbox.layout, 'h2');

  test('is refused to another disk, given back to the disk it had, and given to another once it is given up', async () => {
    const before = await identity('h2');
    await cluster.sandbox.act('kill', 'h2');
    await cluster.nodeIs('h2', 'down');
    const { token: text } = await token();
    expect(await joins('h2', text)).toMatch(/this is another machine, or another disk.*gantry node rm h2.*code 1\n$/s);
    // As an operator does where the cluster takes the identity no more (README).
    const agent = join(places().gantry, 'agent');
    renameSync(join(agent, 'identity'), join(agent, 'identity.former'));
    rmSync(join(places().gantry, 'joined'));
    await cluster.sandbox.act('start', 'h2');
    await cluster.nodeIs('h2', 'ready');
    expect(await identity('h2')).toBe(before);
    expect(existsSync(join(agent, 'identity.former'))).toBe(false);
    await cluster.sandbox.act('kill', 'h2');
    await cluster.nodeIs('h2', 'down');
    expect((await cluster.gantry('node', 'rm', 'h2', '--force')).code).toBe(0);
    expect(await joins('h2', text)).toContain('joined the cluster');
    expect(await names()).toEqual(['h1', 'h2']);
    // Its own disk is now the stranger: it waits until that one is given up.
    expect((await cluster.gantry('node', 'rm', 'h2', '--force')).code).toBe(0);
    const { ready } = await cluster.sandbox.act('start', 'h2');
    expect(ready).toContain('h2');
    expect(await identity('h2')).not.toBe(before);
  });
});

describe('a node', () => {
  test('that is ready is not removed without --force, and is refused once it is', async () => {
    await cluster.apply('name: a\nservices: { a: { image: "registry:5000/hello:1", deploy: { replicas: 2 } } }\n');
    const polite = await cluster.gantry('node', 'rm', 'h2');
    expect(polite).toMatchObject({ code: 1, stderr: expect.stringMatching(/h2 is ready.*gantry drain h2/s) });
    expect((await cluster.gantry('node', 'rm', 'h2', '--force')).code).toBe(0);
    expect(await names()).toEqual(['h1']);
    const told = async () => cluster.sandbox.run('h2', ['tail', '-n', '3', '/var/log/agent.log']);
    await eventually(async () => (await told()).includes('not a member of this cluster'));
    const tasks = await cluster.settled('a', 2);
    expect(tasks.map(({ node }) => node)).toEqual(['h1', 'h1']);
  });

  test('that was removed is a node again, a new one, once its host is started', async () => {
    expect(await names()).toEqual(['h1']);
    const { ready } = await cluster.sandbox.act('start', 'h2');
    expect(ready).toContain('h2');
    expect(await names()).toEqual(['h1', 'h2']);
    const before = await identity('h2');
    expect((await cluster.gantry('node', 'rm', 'h2', '--force')).code).toBe(0);
    await cluster.sandbox.act('kill', 'h2');
    const said: string[] = [];
    await cluster.sandbox.up({ hosts: 2, onProgress: (text) => said.push(text) });
    expect(said).toContain('h2 was removed from the cluster: it joins anew');
    expect(await identity('h2')).not.toBe(before);
    await cluster.apply('name: a\nservices: { a: { image: "registry:5000/hello:1", deploy: { replicas: 4 } } }\n');
    expect((await cluster.settled('a', 4)).map(({ node }) => node)).toContain('h2');
    said.length = 0;
    await cluster.sandbox.up({ hosts: 2, onProgress: (text) => said.push(text) });
    expect(said.join()).not.toContain('anew');
  });
});
