/** A project whose services need each other, on three hosts: who starts when, what a probe by the agent sees, and who stops first. */
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { type Cluster, startCluster, type TaskRow } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

vi.setConfig({ testTimeout: 60_000 });
let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

/** Answers 503 while there is a file /tmp/sick, else 200. */
const server = `cat > /tmp/answer <<'END'
while read -r line && [ "$line" != "$(printf '\\r')" ]; do :; done
status='200 OK'
[ ! -f /tmp/sick ] || status='503 Sick'
printf 'HTTP/1.1 %s\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n' "$status"
END
exec nc -ll -p 8080 -e /bin/sh /tmp/answer`;
const entrypoint = (script: string) => JSON.stringify(['sh', '-c', script.replaceAll('$', '$$$$')]);

const project = (migration: string, version: string) => `
name: shop
services:
  web:
    image: registry:5000/hello:1
    entrypoint: ${entrypoint(server)}
    environment: { VERSION: "${version}" }
    stop_grace_period: 3s
    post_start:
      - { command: [sh, -c, "echo $$GREETING from $$(id -u) > /dev/shm/hooked"], environment: [GREETING=hello], user: "7" }
      - { command: ip addr add 10.99.0.1/32 dev lo, privileged: true }
    pre_stop: [{ command: [sh, -c, "sleep 0.2; echo leaving; exit 4"] }]
    depends_on:
      db: { condition: service_healthy, restart: true }
      migration: { condition: service_completed_successfully }
    healthcheck: { x-http: { port: 8080, path: /up }, x-on-unhealthy: ignore, interval: 200ms, start_interval: 100ms, start_period: 5s }
    deploy: { replicas: 2, placement: { constraints: ["node.hostname == h3"] }, update_config: { parallelism: 0 } }
  migration:
    image: registry:5000/hello:1
    entrypoint: ${entrypoint(migration)}
    environment: { VERSION: "${version}" }
    depends_on: { db: { condition: service_healthy } }
    deploy: { placement: { constraints: ["node.hostname == h2"] } }
  db:
    image: registry:5000/hello:1
    entrypoint: ${entrypoint('(sleep 2; touch /tmp/ready) & exec nc -ll -p 5432 -e /bin/true')}
    stop_grace_period: 1s
    healthcheck: { test: test -f /tmp/ready, interval: 200ms, retries: 100, start_period: 20s, start_interval: 200ms }
    deploy: { placement: { constraints: ["node.hostname == h1"] } }
`;

interface Timed {
  readonly name: string;
  readonly node: string;
  readonly state: string;
  readonly startedAtMs: string;
  readonly finishedAtMs: string;
  readonly revision: number;
}
const timed = async (service: string) => (await cluster.json<Timed[]>('ps', '-a', service)).filter(({ node }) => node);
const apply = (text: string) => cluster.gantry('apply', '-f', cluster.compose('shop.yaml', text));

test('the migration waits for a healthy database on another host, and the web for both', async () => {
  const planned = await cluster.gantry('plan', '-f', cluster.compose('shop.yaml', project('exit 0', '1')));
  expect(planned.stdout).toContain('waits for db to be healthy, and for migration to complete');
  const { code, stdout, stderr } = await apply(project('sleep 1; exit 0', '1'));
  expect(code, stdout + stderr).toBe(0);
  const [[db], [migration], web] = [await timed('db'), await timed('migration'), await timed('web')];
  expect([db!.node, migration!.node, ...web.map(({ node }) => node)]).toEqual(['h1', 'h2', 'h3', 'h3']);
  expect(Number(migration!.startedAtMs)).toBeGreaterThan(Number(db!.startedAtMs) + 2_000);
  for (const { startedAtMs } of web) expect(Number(startedAtMs)).toBeGreaterThan(Number(migration!.finishedAtMs));
});

test('a task that the agent finds unhealthy by HTTP gets no calls until it is well again, and goes on', async () => {
  const pids = async () => (await cluster.settled('web', 2)).map(({ pid }) => pid).sort();
  const before = await pids();
  const healthOf = async () => (await cluster.tasks('web')).map(({ slot, health }) => `${slot} ${health}`).sort();
  await cluster.gantry('exec', 'web.1', 'touch', '/tmp/sick');
  await eventually(async () => expect(await healthOf()).toEqual(['1 unhealthy', '2 healthy']));
  expect((await cluster.tasks('web')).find(({ slot }) => slot === 1)?.message).toContain('GET /up: 503 Sick');
  const { checks } = await cluster.json<{ checks: { ok: boolean; output: string }[] }>('inspect', 'web.1');
  expect(checks.length).toBeLessThanOrEqual(5);
  expect(checks.at(-1)).toMatchObject({ ok: false, output: 'GET /up: 503 Sick' });
  await cluster.gantry('exec', 'web.1', 'rm', '/tmp/sick');
  await eventually(async () => expect(await healthOf()).toEqual(['1 healthy', '2 healthy']));
  expect(await pids()).toEqual(before);
});

test('post_start has run in each task before it counts as running, also what only a privileged one may', async () => {
  for (const task of ['web.1', 'web.2']) {
    const { stdout } = await cluster.gantry(
      'exec',
      task,
      'sh',
      '-c',
      'cat /dev/shm/hooked; ip addr show dev lo | grep -c 10.99.0.1/32',
    );
    expect(stdout).toBe('hello from 7\n1\n');
  }
});

test('a restart of the database renews the web after it', async () => {
  const [before] = await timed('web');
  const { code, stdout, stderr } = await cluster.gantry('restart', 'db');
  expect(code, stdout + stderr).toBe(0);
  const db = (await timed('db')).find(({ state }) => state === 'running')!;
  const web = (await timed('web')).filter(({ state }) => state === 'running');
  expect(web.map(({ revision }) => revision)).toEqual([before!.revision + 1, before!.revision + 1]);
  for (const { startedAtMs } of web) expect(Number(startedAtMs)).toBeGreaterThan(Number(db.startedAtMs) + 2_000);
  const stopped = await cluster.json<{ state: string; error: string }[]>('ps', '-a', 'web');
  const errors = stopped.filter(({ state }) => state === 'shutdown').map(({ error }) => error);
  expect(errors[0]).toMatch(/^pre_stop: .* ended with exit code 4: leaving$/);
});

test('a migration that fails holds the web back, which goes on as it was, and apply says so', async () => {
  const { code, stdout, stderr } = await apply(project('echo no such table; exit 3', '2'));
  expect(code).not.toBe(0);
  expect(stdout + stderr).toMatch(/exit code 3/);
  expect((await cluster.settled('web', 2)).every(({ state }) => state === 'running')).toBe(true);
  const why = await cluster.gantry('why', 'web.1');
  expect(why.stdout).toMatch(
    /revision \d+, which is to replace it, waits for migration to complete in vain: .*exit code 3/,
  );
});

test('services that are removed together stop in the opposite order', async () => {
  const { code, stdout, stderr } = await cluster.gantry('rm', 'db', 'migration', 'web');
  expect(code, stdout + stderr).toBe(0);
  const { stdout: events } = await cluster.gantry('events', '--json');
  const order = events
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as { kind: string; action: string; name: string })
    .filter(({ kind, action }) => kind === 'task' && (action === 'shutdown' || action === 'failed'))
    .map(({ name }) => name.replace(/^.*\//, '').replace(/\..*$/, ''));
  expect(order.lastIndexOf('web')).toBeLessThan(order.lastIndexOf('db'));
});

test('what is isolated is replaced, answers no calls, and is there to be looked at until it is released', async () => {
  const { code, stdout, stderr } = await apply(`
name: lab
services:
  sick:
    image: registry:5000/hello:1
    entrypoint: ${entrypoint(server)}
    stop_grace_period: 1s
    healthcheck: { x-http: { port: 8080 }, x-on-unhealthy: isolate, interval: 200ms, retries: 2, start_interval: 100ms, start_period: 5s }
    deploy: { replicas: 2 }
`);
  expect(code, stdout + stderr).toBe(0);
  const all = async () => {
    const rows = await cluster.json<(TaskRow & { isolatedUntilMs: string })[]>('ps', '-a', 'sick');
    return rows.filter(({ slot }) => slot === 1);
  };
  const [before] = await all();
  await cluster.gantry('exec', 'sick.1', 'sh', '-c', 'echo a trace > /tmp/trace; touch /tmp/sick');
  await eventually(async () => {
    const others = (await all()).filter(({ id }) => id !== before!.id);
    return others.length === 1 && others[0]!.health === 'healthy';
  });
  const isolated = (await all()).find(({ id }) => id === before!.id)!;
  expect(isolated).toMatchObject({ state: 'running', wanted: 'running', node: before!.node, pid: before!.pid });
  const [next] = (await all()).filter(({ id }) => id !== before!.id);
  const listed = await cluster.gantry('ps', 'sick');
  expect(listed.stdout).toMatch(/sick\.1 +isolated \(unhealthy\)/);
  const why = await cluster.gantry('why', isolated.id);
  expect(why.stdout).toMatch(/isolated until .* UTC: isolated: unhealthy: GET \/: 503 Sick/);
  expect(why.stdout).toMatch(/CHECKS.*\n.* ✗ GET \/: 503 Sick \(\d+ ms\)/);

  const look = (name: string) => cluster.gantry('exec', 'sick.2', 'busybox', 'nslookup', name);
  expect((await look('tasks.sick')).stdout).toContain(next!.address);
  expect((await look('tasks.sick')).stdout).not.toContain(isolated.address);
  expect((await look('1.sick')).stdout).not.toContain(isolated.address);
  expect((await cluster.gantry('exec', isolated.id, 'cat', '/tmp/trace')).stdout).toBe('a trace\n');

  const released = await cluster.gantry('release', 'sick.1');
  expect(released.stdout).toContain(`released sick.1 (${isolated.id.slice(0, 5)}) on ${isolated.node}`);
  await eventually(async () => (await all()).find(({ id }) => id === isolated.id)?.state === 'shutdown');
  expect((await all()).find(({ id }) => id === next!.id)).toMatchObject({ state: 'running' });
  const again = await cluster.gantry('release', 'sick.1');
  expect([again.code, again.stderr]).toEqual([1, expect.stringContaining('is not isolated')]);
});

test('steps of pre_start run once in the cluster before the first task, and a failed one again with the next apply', async () => {
  const counted = '[ -f /data/tried ] || { touch /data/tried; echo no such table; exit 3; }; echo up >> /data/runs';
  const file = (version: string) => `
name: steps
services:
  app:
    image: registry:5000/hello:1
    entrypoint: ${entrypoint('grep -c . /data/runs > /tmp/seen && exec nc -ll -p 80 -e /bin/true')}
    environment: { VERSION: "${version}" }
    stop_grace_period: 1s
    volumes: ["data:/data"]
    deploy: { replicas: 2, update_config: { parallelism: 0, monitor: 100ms } }
    pre_start:
      - entrypoint: ${entrypoint(counted)}
      - { entrypoint: [chmod, a+r, /data/runs], user: root }
volumes: { data: }
`;
  const failed = await apply(file('1'));
  expect([failed.code, failed.stdout + failed.stderr]).toEqual([1, expect.stringContaining('exit code 3')]);
  const waiting = await cluster.tasks('app');
  expect(waiting.map(({ state, message }) => [state, message])).toEqual(
    waiting.map(() => [
      'pending',
      expect.stringMatching(/^waits for app-pre-start-1 to complete in vain: .*exit code 3/),
    ]),
  );
  const { code, stdout, stderr } = await apply(file('1'));
  expect(code, stdout + stderr).toBe(0);
  const seen = async (task: string) => (await cluster.gantry('exec', task, 'cat', '/tmp/seen')).stdout;
  expect([await seen('app.1'), await seen('app.2')]).toEqual(['1\n', '1\n']);
  // Where the steps made the volume, the tasks are.
  const steps = await cluster.json<TaskRow[]>('ps', '-a', 'app-pre-start-1');
  expect(steps.map(({ state }) => state).sort()).toEqual(['complete', 'failed']);
  const node = steps.find(({ state }) => state === 'complete')!.node;
  expect((await cluster.tasks('app')).map((task) => task.node)).toEqual([node, node]);
  expect(await cluster.tasks('app-pre-start-1')).toEqual([]);

  expect((await apply(file('1'))).code).toBe(0);
  expect((await cluster.gantry('restart', 'app')).code).toBe(0);
  expect([await seen('app.1'), await seen('app.2')]).toEqual(['1\n', '1\n']);
  expect((await apply(file('2'))).code).toBe(0);
  expect([await seen('app.1'), await seen('app.2')]).toEqual(['2\n', '2\n']);

  expect((await cluster.gantry('rm', 'app')).code).toBe(0);
  const left = await cluster.json<{ spec: { name: string } }[]>('services');
  expect(left.map(({ spec }) => spec.name).filter((name) => name.startsWith('app'))).toEqual([]);
});
