/** The main job, as a user does it: declare, run, look, scale, change, remove, on three hosts with the real parts. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

/** A service of the sample image. */
const web = (name: string, options: { image?: string; replicas?: number; port?: number; more?: string } = {}) => `
name: ${name}
services:
  ${name}:
    image: registry:5000/hello:${options.image ?? '1'}
    ${options.port ? `ports: ["${options.port}:8080"]` : ''}
    stop_grace_period: 3s
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8080/healthz"]
      interval: 1s
      start_interval: 100ms
      start_period: 2s
    ${options.more ?? ''}
    deploy:
      replicas: ${options.replicas ?? 3}
      update_config: { order: start-first, monitor: 500ms }
`;

const hosts = (tasks: readonly { node: string }[]) => tasks.map((task) => task.node).sort();

describe('a Compose file', () => {
  test('becomes replicas on every host, that answer on every host', async () => {
    await cluster.apply(web('front', { port: 18080 }));
    expect(hosts(await cluster.settled('front', 3))).toEqual(['h1', 'h2', 'h3']);
    for (const host of ['h1', 'h2', 'h3']) {
      const index = host.slice(1);
      const answer = () => cluster.http(`http://10.90.0.${index}:18080/`);
      expect(await eventually(answer)).toContain('version 1');
    }
  });

  test('applied again changes nothing', async () => {
    const before = await cluster.tasks('front', '--all');
    const path = cluster.compose('front.yaml', web('front', { port: 18080 }));
    const { code, stdout } = await cluster.gantry('apply', '-f', path);
    expect(code).toBe(0);
    expect(stdout).toContain('unchanged');
    const plan = await cluster.gantry('plan', '-f', path);
    expect(plan.stdout).toContain('Nothing would change');
    expect((await cluster.tasks('front', '--all')).map((task) => task.id)).toEqual(before.map((task) => task.id));
  });

  test('is reached by its name from tasks of its project, through one address', async () => {
    await cluster.apply(`
name: pair
services:
  back: { image: "registry:5000/hello:1", deploy: { replicas: 3 } }
  client: { image: "registry:5000/hello:1" }
`);
    const ask = async (name: string) => {
      const { stdout, stderr, code } = await cluster.gantry(
        'exec',
        'client.1',
        'wget',
        '-q',
        '-O',
        '-',
        `http://${name}:8080/`,
      );
      if (code !== 0) throw new Error(stderr);
      return stdout;
    };
    await eventually(() => ask('back'));
    const answers = new Set<string>();
    for (let index = 0; index < 30; index++) answers.add(await ask('back'));
    expect(answers.size).toBe(3);
    const own = (await cluster.running('back'))[0]!;
    expect(await ask(`${own.slot}.back`)).toContain('hello from');
    const all = await cluster.gantry('exec', 'client.1', 'nslookup', 'tasks.back');
    for (const task of await cluster.running('back')) expect(all.stdout).toContain(task.address);
  });
});

describe('scaling', () => {
  test('spreads over the hosts, and back', async () => {
    const up = await cluster.gantry('scale', 'front=6');
    expect(up.code).toBe(0);
    expect(hosts(await cluster.settled('front', 6))).toEqual(['h1', 'h1', 'h2', 'h2', 'h3', 'h3']);
    const down = await cluster.gantry('scale', 'front=3');
    expect(down.code).toBe(0);
    expect(hosts(await cluster.settled('front', 3))).toEqual(['h1', 'h2', 'h3']);
  });

  test('to nothing and back keeps the service', async () => {
    await cluster.apply(web('idle', { replicas: 1 }));
    expect((await cluster.gantry('scale', 'idle=0')).code).toBe(0);
    await cluster.settled('idle', 0);
    expect((await cluster.gantry('scale', 'idle=2')).code).toBe(0);
    await cluster.settled('idle', 2);
  });
});

describe('looking', () => {
  test('logs come from all hosts, also of replicas that are gone', async () => {
    const read = async () => (await cluster.gantry('logs', 'front')).stdout;
    const logs = await eventually(async () => {
      const text = await read();
      // Slots 4 to 6 are gone since the scale down.
      for (let slot = 1; slot <= 6; slot++) if (!text.includes(`front.${slot}`)) throw new Error(text);
      return text;
    });
    expect(logs).toContain('listens on 8080');
    expect(logs).toContain('asked to stop');
  });

  test('exec runs where the task is, with its exit code', async () => {
    const task = (await cluster.running('front'))[0]!;
    const name = await cluster.gantry('exec', task.name, 'sh', '-c', 'echo out; echo err >&2; exit 7');
    expect(name).toEqual({ code: 7, stdout: 'out\n', stderr: 'err\n' });
    const missing = await cluster.gantry('exec', task.name, 'nosuch');
    expect(missing.code).toBe(127);
  });

  test('why names the rule that keeps a task from every node', async () => {
    const path = cluster.compose(
      'nowhere.yaml',
      `
name: nowhere
services:
  nowhere:
    image: registry:5000/hello:1
    deploy: { placement: { constraints: ["node.labels.gpu == yes"] } }
`,
    );
    const { code, stdout, stderr } = await cluster.gantry('apply', '-f', path);
    expect(code).toBe(1);
    expect(stdout + stderr).toContain('node.labels.gpu');
    const why = await cluster.gantry('why', 'nowhere.1');
    for (const text of ['h1', 'h2', 'h3', 'node.labels.gpu']) expect(why.stdout).toContain(text);
    expect((await cluster.gantry('node', 'label', 'h2', 'gpu=yes')).code).toBe(0);
    expect((await cluster.settled('nowhere', 1))[0]?.node).toBe('h2');
    expect((await cluster.gantry('rm', 'nowhere')).code).toBe(0);
  });

  test('stats, inspect, events, services and nodes tell what there is', async () => {
    expect((await cluster.gantry('stats', 'front')).stdout).toContain('front.1');
    expect(await cluster.json<{ kind: string }>('inspect', 'front')).toMatchObject({ kind: 'service' });
    expect((await cluster.gantry('services')).stdout).toMatch(/front\/front\s+replicated\s+3\/3/);
    expect((await cluster.gantry('nodes')).stdout).toMatch(/h1\s+ready\s+active/);
    const events = await eventually(async () => {
      const { stdout } = await cluster.gantry('events');
      if (!stdout.includes('front')) throw new Error(stdout);
      return stdout;
    });
    expect(events).toContain('service');
  });
});

describe('changing', () => {
  test('a new image replaces all tasks, one at a time, and rollback goes back', async () => {
    await cluster.apply(web('front', { port: 18080, image: '2' }));
    await cluster.settled('front', 3);
    expect(await cluster.http('http://10.90.0.1:18080/')).toContain('version 2');
    expect((await cluster.gantry('rollback', 'front')).code).toBe(0);
    await cluster.settled('front', 3);
    expect(await cluster.http('http://10.90.0.1:18080/')).toContain('version 1');
  });

  test('an image that fails stops the rollout with the reason, and the old tasks go on', async () => {
    const path = cluster.compose('front.yaml', web('front', { port: 18080, image: 'broken' }));
    const { code, stdout, stderr } = await cluster.gantry('apply', '-f', path);
    expect(code).toBe(1);
    expect(stdout + stderr).toContain('exit code 1');
    expect(await cluster.http('http://10.90.0.2:18080/')).toContain('version 1');
    expect((await cluster.gantry('rollback', 'front')).code).toBe(0);
    await cluster.settled('front', 3);
  });

  test('restart replaces every task', async () => {
    const before = new Set((await cluster.running('front')).map((task) => task.id));
    expect((await cluster.gantry('restart', 'front')).code).toBe(0);
    for (const task of await cluster.settled('front', 3)) expect(before.has(task.id)).toBe(false);
  });

  test('a drained node is emptied, an activated one is used again', async () => {
    expect((await cluster.gantry('drain', 'h2')).code).toBe(0);
    await eventually(async () => (await cluster.running('front')).every((task) => task.node !== 'h2'), {
      timeoutMs: 30_000,
      everyMs: 100,
    });
    await cluster.settled('front', 3);
    expect((await cluster.gantry('activate', 'h2')).code).toBe(0);
    await cluster.gantry('scale', 'front=6');
    await eventually(async () => (await cluster.running('front')).some((task) => task.node === 'h2'));
    await cluster.gantry('scale', 'front=3');
  });

  test('global mode runs once on every node, also on one that joins', async () => {
    await cluster.apply(`
name: everywhere
services:
  everywhere: { image: "registry:5000/hello:1", deploy: { mode: global } }
`);
    expect(hosts(await cluster.settled('everywhere', 3))).toEqual(['h1', 'h2', 'h3']);
    await cluster.sandbox.add();
    await cluster.nodeIs('h4', 'ready');
    expect(hosts(await cluster.settled('everywhere', 4))).toEqual(['h1', 'h2', 'h3', 'h4']);
    expect((await cluster.gantry('rm', 'everywhere')).code).toBe(0);
    expect((await cluster.gantry('drain', 'h4')).code).toBe(0);
    await eventually(async () => (await cluster.nodes()).find((node) => node.name === 'h4')?.tasks === 0);
    expect((await cluster.gantry('node', 'rm', 'h4')).code).toBe(0);
    expect((await cluster.nodes()).map((node) => node.name).sort()).toEqual(['h1', 'h2', 'h3']);
  });

  test('a named volume keeps what one task wrote for the next', async () => {
    const spec = (command: string) => `
name: keep
services:
  keep:
    image: registry:5000/hello:1
    entrypoint: ["sh", "-c"]
    command: ["${command}; sleep 1000"]
    init: true
    stop_grace_period: 1s
    volumes: ["data:/data"]
    deploy: { placement: { constraints: ["node.hostname == h1"] } }
volumes: { data: {} }
`;
    await cluster.apply(spec('echo kept > /data/note'));
    await cluster.apply(spec('cat /data/note'));
    await eventually(async () => {
      const { stdout } = await cluster.gantry('logs', 'keep');
      if (!stdout.includes('kept')) throw new Error(`the logs are ${JSON.stringify(stdout)}`);
      return true;
    });
    expect((await cluster.gantry('rm', 'keep')).code).toBe(0);
  });

  test('a removed service is gone with its tasks, and its port is free', async () => {
    expect((await cluster.gantry('rm', 'front')).code).toBe(0);
    await eventually(async () => !(await cluster.gantry('services')).stdout.includes('front/front'));
    await expect(cluster.http('http://10.90.0.1:18080/')).rejects.toThrow();
    await cluster.apply(web('other', { port: 18080, replicas: 1 }));
    expect(await eventually(() => cluster.http('http://10.90.0.3:18080/'))).toContain('version 1');
  });
});
