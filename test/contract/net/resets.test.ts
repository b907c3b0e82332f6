/** What clients see of a backend that is gone without a word: a reset, at once, whether they send or wait; on real kernels. */
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabProgram, startProgram } from '#test/support/lab-program.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let h1: LabHost;
let h2: LabHost;
let hosts: LabHost[];
let client: Awaited<ReturnType<LabHost['attach']>>;
let other: typeof client;
let far: typeof client;
const vip = '10.224.0.2';

beforeAll(async () => {
  lab = await NetLab.start(2);
  [h1, h2] = [lab.host(1), lab.host(2)];
  hosts = [h1, h2];
  for (const host of hosts) await host.apply(hosts);
  client = await h1.attach(2);
  other = await h1.attach(3);
  far = await h2.attach(2);
  for (const [task, name] of [
    [client, 'client'],
    [other, 'other'],
    [far, 'far'],
  ] as const)
    await lab.serveTalk(task.netns, 80, name);
});

afterAll(() => lab?.stop());

beforeEach(() => serving([far.address]));
afterEach(() => lab.outside('ip', 'link', 'set', 'h2', 'up'));

const port = { target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' } as const;

async function serving(addresses: readonly string[], draining: readonly string[] = []) {
  const backends = [...addresses, ...draining].map((one) => backend(one, { serving: !draining.includes(one) }));
  const web = endpoint('web', { vip, ports: [port], backends });
  await h1.apply(hosts, { endpoints: [web], attachments: [client, other] });
  await h2.apply(hosts, { endpoints: [web], attachments: [far] });
}

/** Its cable: nothing of it is heard any more, and no farewell either. */
const unplug = () => lab.outside('ip', 'link', 'set', 'h2', 'down');

const programs: LabProgram[] = [];
afterEach(() => {
  for (const program of programs.splice(0)) program.kill();
});

/** A connection that has had an answer; `talking`: once told to go on, it asks every 50 ms, else it waits for more. */
async function connect(netns: string, address: string, talking: boolean, to?: number) {
  const target = to ?? (address === h1.address ? port.published : port.target);
  const program = startProgram(
    netns,
    `let from; const end = (why) => { console.log('ended ' + why + ' ' + (performance.now() - from)); process.exit(); };
    const s = require('net').connect(${target}, '${address}', () => s.write('?'));
    s.on('data', () => console.log('answered')); s.on('error', (e) => end(e.code)); s.on('close', () => end('closed'));
    process.stdin.once('data', () => {
      from = performance.now();
      ${talking ? "setInterval(() => s.write('?'), 50);" : ''}
      console.log('went on');
    });
    setTimeout(() => end('nothing'), 10000);`,
  );
  programs.push(program);
  const answers = () => program.output().split('answered').length - 1;
  await eventually(() => answers() > 0);
  return {
    answers,
    async goOn() {
      program.say('go on');
      await eventually(() => program.output().includes('went on'));
    },
    /** What ended it, and when: ms since it went on. */
    async end() {
      const [, why, ms] = /ended (\S+) (\S+)/.exec(await program.ended) ?? [];
      return { why, ms: Number(ms) };
    },
  };
}

describe('a backend that is gone without a word', () => {
  it.each([
    ['a task that waits, by the VIP', () => connect(client.netns, vip, false), 'ECONNABORTED'],
    ['a task that waits, by the address', () => connect(client.netns, far.address, false), 'ECONNABORTED'],
    ['the host that waits', () => connect(h1.netns, vip, false), 'ECONNABORTED'],
    ['a task that sends', () => connect(client.netns, vip, true), 'ECONNABORTED'],
  ])('ends the connection of %s', async (_what, begin, expected) => {
    const connection = await begin();
    await unplug();
    await connection.goOn();
    await serving([other.address]);
    const { why, ms } = await connection.end();
    expect(why).toBe(expected);
    expect(ms).toBeLessThan(1000);
  });

  it('ends what a task waits for without a second backend, too', async () => {
    const connection = await connect(client.netns, vip, false);
    await unplug();
    await connection.goOn();
    await serving([]);
    expect((await connection.end()).why).toBe('ECONNABORTED');
  });

  it.each([
    ['another backend', () => [other.address]],
    ['another backend that is gone, too', () => [far.address.replace(/2$/, '77')]],
    ['no backend', () => []],
  ])('resets a client outside when it sends, with %s', async (_what, rest) => {
    const connection = await connect(lab.world, h1.address, true);
    await unplug();
    await serving(rest());
    await connection.goOn();
    const { why, ms } = await connection.end();
    expect(why).toBe('ECONNRESET');
    // What it sent in the moment before is sent again after 0.2, 0.6, 1.4 s.
    expect(ms).toBeLessThan(4000);
  });

  it('ends the connection of a local server to a client that is gone', async () => {
    const connection = await connect(far.netns, other.address, false);
    const peers = () => lab.inside(other.netns, 'ss', '-Htn', 'state', 'established');
    expect(await peers()).toContain(far.address);
    await unplug();
    await serving([other.address]);
    await eventually(async () => !(await peers()).includes(far.address));
    expect(connection.answers()).toBe(1);
  });
});

describe('a flow to a backend that left while the agent was away', () => {
  it('is found and forgotten by the agent that comes, and follows its service', async () => {
    await serving([far.address]);
    expect(await lab.getUdp(client.netns, vip, 80, 40_001)).toMatch(/^far /);
    await h1.killAgent();
    await unplug();
    expect(await h1.run('cat', '/proc/net/nf_conntrack')).toContain(`src=${far.address}`);
    h1.startAgent();
    await serving([other.address]);
    await eventually(async () => !(await h1.run('cat', '/proc/net/nf_conntrack')).includes(`src=${far.address}`));
    await eventually(async () => (await lab.getUdp(client.netns, vip, 80, 40_001)).startsWith('other '));
  });
});

describe('a backend with the network of its host', () => {
  it('takes with it what was led to it, and nothing else of the host', async () => {
    await lab.serveTalk(h2.netns, 80, 'host');
    await serving([h2.address]);
    const [led, own] = [await connect(client.netns, vip, false), await connect(client.netns, h2.address, true, 80)];
    await own.goOn();
    await led.goOn();
    await serving([other.address]);
    expect((await led.end()).why).toBe('ECONNABORTED');
    const before = own.answers();
    await eventually(() => own.answers() > before + 10);
  });
});

describe('connections that are nobody to cut', () => {
  it('go on: of a task that drains, and of the other backends', async () => {
    await serving([far.address, other.address]);
    const connections = await Promise.all([1, 2, 3, 4, 5, 6].map(() => connect(client.netns, vip, true)));
    for (const one of connections) await one.goOn();
    await serving([other.address], [far.address]);
    const before = connections.map((one) => one.answers());
    await eventually(() => connections.every((one, index) => one.answers() > before[index]! + 10));
  });

  it('go on: of those who came by the port, when another backend is gone', async () => {
    await serving([other.address]);
    const connection = await connect(lab.world, h1.address, true);
    await connection.goOn();
    await serving([other.address, far.address]);
    await serving([other.address]);
    const before = connection.answers();
    await eventually(() => connection.answers() > before + 10);
  });
});
