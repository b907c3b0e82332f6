/** A node that is removed while it is out of reach: what it still runs ends as soon as it hears of it. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster(3);
});
afterAll(() => cluster?.close());

const containers = async (host: string) =>
  Number(await cluster.sandbox.run(host, ['sh', '-c', "pgrep -c '^conmon$' || true"]));

test('a node removed while its cable was cut ends its containers once the cable is back', async () => {
  await cluster.apply('name: a\nservices: { a: { image: "registry:5000/hello:1", deploy: { replicas: 3 } } }\n');
  await cluster.settled('a', 3);
  await cluster.sandbox.act('cut', 'h3');
  await cluster.nodeIs('h3', 'down');
  await cluster.settled('a', 3);
  expect((await cluster.gantry('node', 'rm', 'h3')).code).toBe(0);
  expect(await containers('h3')).toBe(1);
  await cluster.sandbox.act('join', 'h3');
  await eventually(async () => (await containers('h3')) === 0, { everyMs: 100 });
  const told = await cluster.sandbox.run('h3', ['tail', '-n', '20', '/var/log/agent.log']);
  expect(told).toMatch(/not a member of this cluster.*join it again with a new token/);
  expect((await cluster.settled('a', 3)).map(({ node }) => node)).not.toContain('h3');
});
