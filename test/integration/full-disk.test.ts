/** A disk of a node is full: its tasks say so, the node stays a member and what runs goes on; with space again all is well. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { onSmallDisk } from '#test/support/small-disk.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster(1);
  await onSmallDisk(cluster.sandbox, 'h1', '-f node-agent/main.t[s]', '/var/lib/gantry/agent', '2m');
  await onSmallDisk(cluster.sandbox, 'h1', '-x containerd', '/var/lib/containerd', '32m');
  await cluster.nodeIs('h1', 'ready');
});
afterAll(() => cluster?.close());

const on = (...command: string[]) => cluster.sandbox.run('h1', command);

const fill = (directory: string) => on('sh', '-c', `cat /dev/zero > ${directory}/filler || true`);
const free = (directory: string) => on('rm', `${directory}/filler`);

const service = (name: string, image: string) => `
name: ${name}
services: { ${name}: { image: "registry:5000/${image}" } }
`;

async function fails(name: string, image: string): Promise<string> {
  const path = cluster.compose(`${name}.yaml`, service(name, image));
  const { code, stdout, stderr } = await cluster.gantry('apply', '-f', path);
  expect(code).toBe(1);
  return stdout + stderr;
}

describe('a full disk', () => {
  test.for([
    ['agent', '/var/lib/gantry/agent', 'hello:1'],
    ['containerd', '/var/lib/containerd', 'hello:2'],
  ] as const)(
    'F22: of the %s is named, and the task runs when there is space',
    { timeout: 60_000 },
    async ([name, directory, image]) => {
      await cluster.apply(service(`before-${name}`, 'hello:1'));
      await fill(directory);
      expect(await fails(`full-${name}`, image)).toMatch(/disk .*full.*no space left on device/);
      expect((await cluster.nodes())[0]?.state).toBe('ready');
      await free(directory);
      await cluster.settled(`full-${name}`, 1);
      await eventually(async () => (await cluster.running(`before-${name}`)).length === 1);
      await cluster.apply(service(`after-${name}`, 'hello:1'));
    },
  );
});
