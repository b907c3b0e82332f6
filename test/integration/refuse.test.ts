/** Bad input and a bad world get their reason in words at the CLI, within seconds, and nothing is half applied. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pushSampleImage } from '#node-agent/sandbox/sample-image.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { holdDown } from '#test/support/hold-down.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster(1);
});
afterAll(() => cluster?.close());

const serviceNames = async () =>
  (await cluster.json<{ spec: { name: string } }[]>('services')).map((service) => service.spec.name).sort();

async function refused(text: string): Promise<string> {
  const before = await serviceNames();
  const path = cluster.compose('bad.yaml', text);
  const { code, stdout, stderr } = await cluster.gantry('apply', '-f', path);
  expect(code).toBe(2);
  expect(await serviceNames()).toEqual(before);
  return stdout + stderr;
}

/** Applies what is well formed but cannot run; what the CLI says when it gives up. */
async function fails(text: string): Promise<string> {
  const path = cluster.compose('fails.yaml', text);
  const { code, stdout, stderr } = await cluster.gantry('apply', '-f', path);
  expect(code).toBe(1);
  return stdout + stderr;
}

describe('a file that cannot be meant', () => {
  test('an unknown key is named with line and column', async () => {
    expect(await refused('services:\n  web:\n    image: registry:5000/hello:1\n    envirnoment: { A: b }\n')).toMatch(
      /bad\.yaml:4:5.*envirnoment/s,
    );
  });

  test('a wrong type is named with line and column', async () => {
    expect(
      await refused('services:\n  web:\n    image: registry:5000/hello:1\n    deploy: { replicas: two }\n'),
    ).toMatch(/bad\.yaml:4:\d+.*replicas/s);
  });

  test('one bad service keeps the good ones out too', async () => {
    await refused(
      'services:\n  good: { image: "registry:5000/hello:1" }\n  bad: { image: "registry:5000/hello:1", nope: 1 }\n',
    );
  });

  test('a constraint that is none is refused with what it should be', async () => {
    expect(
      await refused(
        'services:\n  web:\n    image: registry:5000/hello:1\n    deploy: { placement: { constraints: ["node.labels.zone = a"] } }\n',
      ),
    ).toContain('==');
  });

  test('a published port that another service has is refused with the owner', async () => {
    await cluster.apply(
      'name: owner\nservices: { owner: { image: "registry:5000/hello:1", ports: ["18181:8080"] } }\n',
    );
    expect(
      await refused('name: second\nservices: { second: { image: "registry:5000/hello:1", ports: ["18181:8080"] } }\n'),
    ).toMatch(/18181.*owner/s);
  });
});

describe('a world that does not have it', () => {
  test('a missing image', async () => {
    expect(await fails('name: a\nservices: { a: { image: "registry:5000/nosuch:1" } }\n')).toContain(
      'has no registry:5000/nosuch:1',
    );
  });

  test('a digest the registry does not have', async () => {
    const digest = `sha256:${'0'.repeat(64)}`;
    expect(await fails(`name: b\nservices: { b: { image: "registry:5000/hello@${digest}" } }\n`)).toMatch(
      /0000.*not|not.*0000/s,
    );
  });

  test('a registry at an address where nobody is', async () => {
    const said = await fails('name: c\nservices: { c: { image: "10.90.0.77:5000/x:1" } }\n');
    expect(said).toMatch(/image not available: the registry 10\.90\.0\.77:5000 is not reached/);
  });

  test('a registry that is down, until it is back', async () => {
    await pushSampleImage(cluster.sandbox, 'hello:late');
    const registry = await holdDown(cluster.sandbox, 'm1', '-x docker-registry');
    const text = 'name: late\nservices: { late: { image: "registry:5000/hello:late" } }\n';
    expect(await fails(text)).toMatch(/registry:5000 is not reached: nothing listens there.*trying/s);
    const [waiting] = await cluster.tasks('late');
    expect(waiting?.error).toContain('registry:5000');
    await registry.release();
    const [task] = await cluster.settled('late', 1);
    expect(task?.error).toBe('');
    expect((await cluster.gantry('rm', 'late')).code).toBe(0);
  });

  test('F23: the registry is not asked for an image that is here', async () => {
    await cluster.apply('name: first\nservices: { first: { image: "registry:5000/hello:1" } }\n');
    const registry = await holdDown(cluster.sandbox, 'm1', '-x docker-registry');
    await cluster.apply('name: again\nservices: { again: { image: "registry:5000/hello:1", command: ["x"] } }\n');
    await registry.release();
    expect((await cluster.gantry('rm', 'first', 'again')).code).toBe(0);
  });

  test('a command that is not in the image', async () => {
    expect(
      await fails('name: d\nservices: { d: { image: "registry:5000/hello:1", entrypoint: ["/nosuch"] } }\n'),
    ).toContain('/nosuch');
  });

  test('more memory than any node has', async () => {
    expect(
      await fails(
        'name: e\nservices: { e: { image: "registry:5000/hello:1", deploy: { resources: { reservations: { memory: 900G } } } } }\n',
      ),
    ).toContain('memory');
  });
});
