/** The network of a whole cluster while it is cut, killed and broken by hand: it comes back by itself, says so, and misleads nobody. */
import { spawn } from 'node:child_process';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { systemRandom } from '#proto/kernel/random.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { FaultLab, faultsProject } from '#test/support/net-faults.ts';
import { statesOf } from '#test/support/network-state.ts';

/** That it takes two seconds at most is for `npm run chaos:net` to say, which has the machine for itself. */
const patienceMs = 20_000;
let cluster: Cluster;
let lab: FaultLab;
beforeAll(async () => {
  cluster = await startCluster();
  await cluster.apply(faultsProject);
  await cluster.settled('web', 6);
  await cluster.settled('one', 1);
  lab = new FaultLab(cluster);
});
afterAll(async () => {
  lab?.close();
  await cluster?.close();
});

const onHost = (host: string, script: string) => cluster.sandbox.run(host, ['sh', '-c', script]);
interface EventRow {
  readonly kind: string;
  readonly action: string;
  readonly node: string;
  readonly message: string;
}
async function repairs(node: string): Promise<string[]> {
  const { stdout } = await cluster.gantry('events', '--json');
  const events = stdout.split('\n').flatMap((line) => (line.startsWith('{') ? [JSON.parse(line) as EventRow] : []));
  return events.filter((event) => event.action === 'repaired' && event.node === node).map(({ message }) => message);
}

describe('what a hand deletes', () => {
  test.for([
    [
      'a route',
      'ip route del 10.192.0.0/11 2>/dev/null || ip route del unreachable 10.192.0.0/11',
      /^route unreachable 10/,
    ],
    ['the table', 'nft delete table ip gantry', /^table ip gantry was missing/],
    ['a chain', 'nft flush chain ip gantry forward', /^forward of table ip gantry was changed/],
    ['an element', 'nft flush map ip gantry backends', /^\d+ elements were missing in table ip gantry/],
    ['the address', 'ip address flush dev gantry0', /^address 10\S+ of the bridge was missing/],
    ['the link', 'ip link del gantry0', /^the bridge was missing/],
    ['the rules', 'ip rule del priority 18201', /^rule 18201/],
  ] as const)('%s is back, and an event says so', async ([_what, damage, message]) => {
    expect((await lab.agree(patienceMs)).problems).toEqual([]);
    const before = (await repairs('h1')).length;
    await onHost('h1', damage);
    expect((await lab.agree(patienceMs)).problems).toEqual([]);
    await eventually(async () => (await repairs('h1')).slice(before).some((said) => message.test(said)));
  });

  test('five times a second floods nobody: it is said once, and then how often', async () => {
    const before = (await repairs('h2')).length;
    await onHost('h2', 'for i in $(seq 40); do nft delete table ip gantry 2>/dev/null; sleep 0.25; done');
    await eventually(async () => (await repairs('h2')).slice(before).some((said) => /\(\d+ times\)$/.test(said)), {
      timeoutMs: 20_000,
      everyMs: 500,
    });
    expect((await repairs('h2')).length - before).toBeLessThan(8);
    expect((await lab.agree(patienceMs)).problems).toEqual([]);
  });
});

describe('many faults in a row', () => {
  test('after each, every node says what the store says, and leads to nobody who is gone', async () => {
    const seed = systemRandom.int(2 ** 31);
    const { failures, counts } = await lab.run({ rounds: 40, seed, withinMs: patienceMs });
    expect(failures, `npm run chaos:net -- --rounds 40 --seed ${seed}`).toEqual([]);
    expect(Object.keys(counts).length).toBeGreaterThan(3);
    for (const host of ['h1', 'h2', 'h3']) await cluster.nodeIs(host, 'ready', 40_000);
    expect((await lab.agree(patienceMs)).problems).toEqual([]);
  }, 300_000);
});

describe('a client that waits', () => {
  test('for an answer of a host that loses power is told when the host is taken for down, not minutes later', async () => {
    await cluster.apply(`
name: waits
services:
  mute:
    image: registry:5000/hello:1
    entrypoint: ["busybox", "nc", "-ll", "-p", "9000", "-e", "busybox", "sleep", "100000"]
    deploy: { replicas: 1, placement: { constraints: ["node.hostname == h3"] } }
  client:
    image: registry:5000/hello:1
    deploy: { replicas: 1, placement: { constraints: ["node.hostname == h1"] } }
`);
    const [client] = await cluster.settled('waits/client', 1);
    await cluster.settled('waits/mute', 1);
    const { services } = await lab.stored();
    const vip = services.find(({ name }) => name === 'mute')!.vip;
    const program = `const s = require('net').connect(9000, '${vip}', () => console.log('connected'));
      s.on('error', (e) => { console.log('ended ' + e.code); process.exit(); }); s.on('close', () => process.exit());`;
    const [file, ...args] = cluster.sandbox.execLine('h1', [
      'nsenter',
      `--net=/run/gantry/netns/${client!.id}`,
      process.execPath,
      '-e',
      program,
    ]);
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'ignore'] });
    let output = '';
    child.stdout.on('data', (data) => {
      output += data;
    });
    try {
      await eventually(() => output.includes('connected'));
      const began = performance.now();
      await cluster.sandbox.act('kill', 'h3');
      await eventually(() => output.includes('ended'));
      expect(output).toMatch(/ended ECONN(ABORTED|RESET)/);
      // The verdict takes one and a half seconds of silence.
      expect(performance.now() - began).toBeLessThan(5_000);
    } finally {
      child.kill('SIGKILL');
    }
    await cluster.sandbox.act('start', 'h3');
    await cluster.nodeIs('h3', 'ready', 40_000);
  });
});

describe('gantry agent reset', () => {
  test('is refused while the agent runs, and leaves a host without a trace of Gantry in its network', async () => {
    const reset = `${process.execPath} ${new URL('../../node-agent/main.ts', import.meta.url).pathname} reset --purge`;
    const refused = await onHost('h2', `${reset} 2>&1 || true`);
    expect(refused).toContain('an agent is at work in /run/gantry');
    const state = () => statesOf((...command) => cluster.sandbox.run('h2', command));
    const { foreign } = await state();
    // Whoever keeps the agent alive gives up first. The last of its threads may end after it is a zombie: then the lock is free.
    await onHost(
      'h2',
      "agent=$(pgrep -f '[n]ode-agent/main.ts' | head -1); kill -STOP $(ps -o ppid= -p $agent); kill -9 $agent; while ! flock -n /run/gantry/agent.lock true; do sleep 0.05; done",
    );
    const said = await onHost('h2', reset);
    expect(said).toContain('removed table ip gantry');
    await eventually(async () => {
      const now = await state();
      expect(now).toEqual({ own: [], foreign });
      return true;
    });
  });
});
