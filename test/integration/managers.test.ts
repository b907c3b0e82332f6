/** Three managers: whichever of them dies, stands still or is cut off, commands go through, and what runs goes on. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Cluster, startCluster, type TaskRow } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
let before: readonly TaskRow[];
beforeAll(async () => {
  cluster = await startCluster(2, { managers: 3 });
  await cluster.apply(`
name: app
services:
  app:
    image: registry:5000/hello:1
    ports: ["18091:8080"]
    deploy: { replicas: 4 }
`);
  before = await cluster.settled('app', 4, 60_000);
}, 180_000);
afterAll(() => cluster?.close());

const idAndPid = (tasks: readonly TaskRow[]) => tasks.map(({ id, pid }) => `${id} ${pid}`).sort();
const linesOf = (text: string) => text.split('\n').filter((line) => line !== '');
const answers = () => eventually(() => cluster.http('http://10.90.0.1:18091/'));
const leader = async () => (await cluster.json<{ leader: string }>('info')).leader;
const managerStates = async () => {
  const { managers } = await cluster.json<{ managers: { state: string }[] }>('info');
  return managers.map(({ state }) => state).sort();
};
const onHost = (host: string, line: string) => cluster.sandbox.run(host, ['sh', '-c', line]);
const controlPlane = "$(pgrep -f '[c]ontrol-plane/main.ts run')";
const managers = ['m1', 'm2', 'm3'];

/** A change that must go through, and be there once. */
async function secretIsKept(name: string): Promise<void> {
  const { code, stderr } = await cluster.feed(name, 'secret', 'create', name, '-');
  // A machine that is slow to elect another leader says as of when its answer holds.
  expect(stderr.replace(/^as of .*, no quorum: may be stale\n/, '')).toBe('');
  expect(code).toBe(0);
  const secrets = await cluster.json<{ name: string }[]>('secret', 'ls');
  expect(secrets.filter((one) => one.name === name)).toHaveLength(1);
}

/** All that was ever printed and all that has happened, also since one of three servers of NATS is gone. */
async function logsAndEventsAreWhole(secret: string): Promise<void> {
  const isWhole = async () => {
    const [logs, events] = await Promise.all([cluster.gantry('logs', 'app'), cluster.gantry('events', '--json')]);
    expect([logs.code, logs.stderr, events.code, events.stderr]).toEqual([0, '', 0, '']);
    expect(linesOf(logs.stdout).filter((line) => line.includes('listens on 8080'))).toHaveLength(4);
    const happened = linesOf(events.stdout).map(
      (line) => JSON.parse(line) as { kind: string; action: string; name: string },
    );
    const count = (one: Partial<(typeof happened)[number]>) =>
      happened.filter((event) => Object.entries(one).every(([key, value]) => event[key as 'kind'] === value)).length;
    expect(count({ kind: 'task', action: 'running' })).toBe(4);
    expect(count({ action: 'secret-created', name: secret })).toBe(1);
    return true;
  };
  // The two that are left find each other; whatever is read from then on is whole.
  await eventually(isWhole, { timeoutMs: 30_000 });
  await Promise.all(Array.from({ length: 6 }, isWhole));
}

async function nothingWasRestarted(): Promise<void> {
  expect(idAndPid(await cluster.settled('app', 4))).toEqual(idAndPid(before));
}

describe('of three managers', () => {
  test('nodes are connected also with those that do not lead, for their session and for beats', async () => {
    const isConnectedWithAll = async (host: string) => {
      const lines = linesOf(await onHost(host, "ss -tHn state established '( dport = :7400 )'"));
      const peers = lines.map((line) => line.trim().split(/\s+/).at(-1));
      return peers.length === 2 * managers.length && new Set(peers).size === managers.length;
    };
    await eventually(async () => (await Promise.all(['h1', 'h2'].map(isConnectedWithAll))).every(Boolean), {
      timeoutMs: 90_000,
      everyMs: 500,
    });
  });

  test('the one that leads loses its power: the next command goes through, no task is restarted, and logs and events are whole', async () => {
    const led = await leader();
    await cluster.sandbox.act('kill', led);
    await secretIsKept('after-the-power-went');
    await eventually(async () => (await leader()) !== led);
    await eventually(async () => (await managerStates()).join() === 'follows,leads,silent');
    await Promise.all(['h1', 'h2'].map((node) => cluster.nodeIs(node, 'ready')));
    await nothingWasRestarted();
    await logsAndEventsAreWhole('after-the-power-went');
    await cluster.sandbox.act('start', led);
    await eventually(async () => (await managerStates()).join() === 'follows,follows,leads');
    await eventually(() => onHost(led, 'curl -sf http://127.0.0.1:7402/metrics'), { timeoutMs: 30_000 });
  });

  test('the one that leads stands still and comes back: it is deposed, and changes nothing', async () => {
    const led = await leader();
    await onHost(led, `kill -STOP ${controlPlane}`);
    // The sockets of one that stands still take connections: the command asks one that answers.
    const other = managers.find((one) => one !== led)!;
    const socket = `${cluster.sandbox.layout.dir}/${other}/run/gantry/control-plane.sock`;
    const at = (...args: string[]) => cluster.gantry(...args, '--socket', socket);
    await eventually(async () => {
      const { stdout } = await at('info', '--json');
      const now = (JSON.parse(stdout) as { leader: string }).leader;
      return now !== led && managers.includes(now);
    });
    await onHost(led, `kill -CONT ${controlPlane}`);
    await eventually(async () => {
      const log = await onHost(led, "grep -c 'no longer leading' /var/log/control-plane.log");
      return Number(log) > 0;
    });
    await secretIsKept('after-one-stood-still');
    await nothingWasRestarted();
    // Its server takes connections while it stands still, and answers nobody.
    await onHost(led, 'pkill -STOP -x nats-server');
    await logsAndEventsAreWhole('after-one-stood-still');
    await onHost(led, 'pkill -CONT -x nats-server');
  });

  test('the one that leads stays without its etcd: another leads, and the nodes are there', async () => {
    const led = await leader();
    await onHost(led, 'pkill -STOP -x etcd');
    const other = managers.find((one) => one !== led)!;
    const socket = `${cluster.sandbox.layout.dir}/${other}/run/gantry/control-plane.sock`;
    await eventually(async () => {
      const { code } = await cluster.gantry('exec', '--socket', socket, 'app.1', 'true');
      const log = await onHost(
        led,
        "grep -c 'another replica leads, as it says itself' /var/log/control-plane.log || true",
      );
      return code === 0 && Number(log) > 0;
    });
    await onHost(led, 'pkill -CONT -x etcd');
    await secretIsKept('after-one-had-no-etcd');
    await nothingWasRestarted();
  });

  test('two are off: what runs goes on, also past a restart of its agent; then all goes on', async () => {
    await Promise.all(['m2', 'm3'].map((one) => cluster.sandbox.act('kill', one)));
    await onHost('h1', "kill -9 $(pgrep -f '[n]ode-agent/main.ts --data')");
    await eventually(() => onHost('h1', "pgrep -f '[n]ode-agent/main.ts --data'"));
    for (let times = 0; times < 8; times++) await answers();
    const lost = Date.now();
    const told = await eventually(async () => {
      const { code, stdout, stderr } = await cluster.gantry('ps', 'app', '--json');
      expect(code).toBe(0);
      expect(JSON.parse(stdout)).toHaveLength(4);
      return /^as of (.*), no quorum: may be stale\n$/.exec(stderr)?.[1];
    });
    expect(new Date(told ?? '').getTime()).toBeLessThanOrEqual(lost);
    for (const one of ['m2', 'm3']) await cluster.sandbox.act('start', one);
    await eventually(async () => (await cluster.gantry('ps', 'app')).stderr === '');
    await secretIsKept('after-all-are-back');
    await Promise.all(['h1', 'h2'].map((node) => cluster.nodeIs(node, 'ready', 60_000)));
    await nothingWasRestarted();
  }, 180_000);

  test('the CA changes at all of them, and each may fail after that too', async () => {
    const status = () => cluster.json<{ phase: string; roots: string[] }>('ca', 'status');
    const [old] = (await status()).roots;
    expect((await cluster.gantry('ca', 'rotate')).code).toBe(0);
    await eventually(
      async () => {
        const { phase, roots } = await status();
        return phase === 'settled' && roots.length === 1 && roots[0] !== old;
      },
      { timeoutMs: 60_000, everyMs: 200 },
    );
    const led = await leader();
    await cluster.sandbox.act('kill', led);
    await secretIsKept('after-another-ca');
    await Promise.all(['h1', 'h2'].map((node) => cluster.nodeIs(node, 'ready')));
    await nothingWasRestarted();
  });
});
