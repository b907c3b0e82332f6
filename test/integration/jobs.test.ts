/** Work that ends: so many completions, a number at once, again where it failed or its host died, and each instant of a schedule once. */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Cluster, startCluster, type TaskRow } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

interface IterationRow {
  readonly number: number;
  readonly dueAtMs: number;
  readonly state: string;
  readonly completed: number;
  readonly failed: number;
  readonly exitCode: number;
  readonly message: string;
}

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.close());

const shell = (script: string) => JSON.stringify(['/bin/sh', '-c', script.replaceAll('$', '$$$$')]);
const historyOf = (name: string) => cluster.json<IterationRow[]>('job', 'history', name);
const logOf = async (name: string) =>
  (await cluster.gantry('logs', '--no-prefix', name)).stdout.split('\n').filter((line) => line !== '');
const slotsOf = (tasks: readonly TaskRow[]) => tasks.map(({ slot }) => slot).sort();

/** Whoever names itself here for the first time is told so, wherever in the cluster it runs. */
const marks = `
  marks:
    image: registry:5000/hello:1
    entrypoint: ${shell("exec nc -ll -p 9000 -e /bin/sh -c 'read n; mkdir /tmp/$n 2>/dev/null && echo new || echo old'")}`;

test('five completions, two at a time, one of which fails once', async () => {
  const script =
    'echo "begin $SEAT"; sleep 1; [ $(hostname) != n3 ] || [ "$(echo $(hostname) | nc marks 9000)" = old ]';
  const file = cluster.compose(
    'batch.yaml',
    `
name: batch
services:${marks}
  work:
    image: registry:5000/hello:1
    hostname: "n{{.Task.Slot}}"
    environment: { SEAT: "n{{.Task.Slot}}" }
    entrypoint: ${shell(script)}
    deploy: { mode: replicated-job, replicas: 5 }
    x-max-concurrent: 2
`,
  );
  const applied = cluster.gantry('apply', '-f', file);
  let done = false;
  void applied.then(() => {
    done = true;
  });
  let most = 0;
  await eventually(
    async () => {
      const tasks = await cluster.tasks('work', '-a').catch((): TaskRow[] => []);
      most = Math.max(most, tasks.filter(({ state }) => state === 'running').length);
      return done;
    },
    { timeoutMs: 40_000, everyMs: 50 },
  );
  const { code, stdout, stderr } = await applied;
  expect(stderr).toBe('');
  expect(stdout).toContain('5/5 completed');
  expect(code).toBe(0);
  expect(most).toBe(2);
  expect(await historyOf('work')).toMatchObject([{ number: 1, state: 'complete', completed: 5, failed: 0 }]);
  const tasks = await cluster.tasks('work', '-a');
  expect((await logOf('work')).sort()).toEqual([
    'begin n1',
    'begin n2',
    'begin n3',
    'begin n3',
    'begin n4',
    'begin n5',
  ]);
  expect(tasks.filter(({ state }) => state === 'failed')).toMatchObject([{ name: 'work.3', exitCode: 1 }]);
  expect(slotsOf(tasks.filter(({ state }) => state === 'complete'))).toEqual([1, 2, 3, 4, 5]);
  expect((await cluster.gantry('services')).stdout).toMatch(/batch\/work +replicated-job +5\/5 completed/);
  // Nothing has changed: nothing runs again, until somebody asks.
  expect((await cluster.gantry('apply', '-f', file)).code).toBe(0);
  expect(await historyOf('work')).toHaveLength(1);
  const again = await cluster.gantry('job', 'run', 'work');
  expect(again.stdout).toContain('5/5 completed');
  expect(await historyOf('work')).toMatchObject([{ number: 2, message: 'asked for' }, { number: 1 }]);
});

test('what fails for good is said with its exit code', async () => {
  const file = cluster.compose(
    'bad.yaml',
    `
name: bad
services:
  bad:
    image: registry:5000/hello:1
    entrypoint: ${shell('exit 7')}
    deploy: { mode: replicated-job, restart_policy: { condition: on-failure, max_attempts: 1 } }
`,
  );
  const { code, stdout } = await cluster.gantry('apply', '-f', file);
  expect(stdout).toMatch(/failed: bad\.1 \(\w+\) on h\d: .*7/);
  expect(code).toBe(1);
  expect(await historyOf('bad')).toMatchObject([{ state: 'failed', completed: 0, failed: 1, exitCode: 7 }]);
  expect(await cluster.tasks('bad', '-a')).toHaveLength(2);
});

test('when a host dies, what it had not completed is done elsewhere, and nothing else again', async () => {
  const file = cluster.compose(
    'long.yaml',
    `
name: long
services:
  long:
    image: registry:5000/hello:1
    hostname: "n{{.Task.Slot}}"
    entrypoint: ${shell('echo "begin $(hostname)"; sleep 3')}
    deploy: { mode: replicated-job, replicas: 6 }
    x-max-concurrent: 3
`,
  );
  const applied = cluster.gantry('apply', '-f', file);
  const [completed, lost] = (await eventually(
    async () => {
      const tasks = await cluster.tasks('long', '-a');
      const completed = tasks.filter(({ state }) => state === 'complete');
      const running = tasks.filter(({ state }) => state === 'running');
      // One of the second three, which has just begun.
      const lost = completed.length >= 3 ? running.find(({ slot }) => slot > 3) : undefined;
      return lost && ([completed, lost] as const);
    },
    { everyMs: 50 },
  ))!;
  await cluster.sandbox.act('kill', lost.node);
  expect((await applied).stdout).toContain('6/6 completed');
  const tasks = await cluster.tasks('long', '-a');
  for (const { slot } of completed) expect(tasks.filter((task) => task.slot === slot)).toHaveLength(1);
  expect(
    tasks
      .filter(({ slot }) => slot === lost.slot)
      .map(({ state }) => state)
      .sort(),
  ).toEqual(['complete', 'orphaned']);
  await cluster.sandbox.act('start', lost.node);
  await cluster.nodeIs(lost.node, 'ready', 40_000);
});

test('each instant of a schedule runs once, also where the control plane is killed', async () => {
  const seconds = 20;
  const file = cluster.compose(
    'tick.yaml',
    `
name: tick
services:
  tick:
    image: registry:5000/hello:1
    entrypoint: ${shell('echo ran')}
    x-schedule: { cron: "*/2 * * * * *", catch-up: all, history: { success: 100 } }
`,
  );
  const planned = (await cluster.gantry('plan', '-f', file)).stdout;
  expect(planned).toMatch(/runs at (\d{4}-\d\d-\d\d \d\d:\d\d:\d[02468] UTC(, )?){3}/);
  expect((await cluster.gantry('apply', '-f', file)).stdout).toContain('waits for its schedule');
  const count = async () => (await historyOf('tick').catch(() => [])).length;
  const kill = "kill -9 $(pgrep -f '[c]ontrol-plane/main.ts run')";
  for (const after of [seconds / 6]) {
    await eventually(async () => (await count()) >= after, { timeoutMs: 60_000, everyMs: 100 });
    await cluster.sandbox.run('m1', ['sh', '-c', kill]);
  }
  await eventually(async () => (await count()) >= seconds / 2, { timeoutMs: 60_000, everyMs: 100 });
  expect((await cluster.gantry('job', 'suspend', 'tick')).stdout).toContain('suspended tick/tick');
  const iterations = (await eventually(
    async () => {
      const iterations = [...(await historyOf('tick'))].reverse();
      return iterations.every(({ state }) => state !== 'running') ? iterations : undefined;
    },
    { timeoutMs: 30_000, everyMs: 100 },
  ))!;
  expect(new Set(iterations.map(({ state }) => state))).toEqual(new Set(['complete']));
  const first = iterations[0]!.dueAtMs;
  expect(iterations.map(({ dueAtMs }) => dueAtMs)).toEqual(iterations.map((_, index) => first + index * 2_000));
  await eventually(async () => (await logOf('tick')).length >= iterations.length);
  expect(await logOf('tick')).toEqual(iterations.map(() => 'ran'));
  const [job] = (await cluster.json<{ readonly nextAtMs: number[] }[]>('job', 'ls', '-p', 'tick'))!;
  expect(job!.nextAtMs).toEqual([]);
  expect((await cluster.gantry('job', 'ls')).stdout).toMatch(
    /tick\/tick +\*\/2 \* \* \* \* \* +suspended +\d+ +complete +1\/1/,
  );
});
