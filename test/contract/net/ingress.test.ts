/** A client from outside, whose address reaches the task whatever node it came in by, and whose connections go on. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab, worldAddress } from '#test/support/net-lab.ts';

let lab: NetLab;
let hosts: LabHost[];
/** One task on each host. */
let tasks: Awaited<ReturnType<LabHost['attach']>>[];
const vip = '10.224.0.2';
const ports = (['tcp', 'udp'] as const).map(
  (protocol) => ({ target: 7000, published: 8080, protocol, mode: 'ingress' }) as const,
);
const clients = ['10.90.0.254', worldAddress];

beforeAll(async () => {
  lab = await NetLab.start(3);
  hosts = [1, 2, 3].map((number) => lab.host(number));
  for (const host of hosts) await host.apply(hosts);
  tasks = await Promise.all(hosts.map((host) => host.attach(2)));
  for (const [index, task] of tasks.entries()) await lab.serveTalk(task.netns, 7000, `t${index + 1}`);
  await eventually(async () => {
    const known = await Promise.all(hosts.map((host) => elements(host, 'ingress')));
    return known.every((text) => text.match(/ : 163/g)?.length === 2);
  });
});

afterAll(() => lab?.stop());

const elements = (host: LabHost, set: string) =>
  host.run('nft', 'list', ['ingress', 'reply_marks'].includes(set) ? 'map' : 'set', 'ip', 'gantry', set);

/** All hosts publish the service of the tasks with these numbers. */
async function serve(...numbers: number[]) {
  const web = endpoint('web', { vip, ports, backends: numbers.map((number) => backend(`10.192.${number}.2`)) });
  await Promise.all(
    hosts.map((host, index) => host.apply(hosts, { endpoints: [web], attachments: [tasks[index] as never] })),
  );
}

/** Says something to each address from `client`, and gives the answers; `localPort` for all of them, where given. */
const say = (client: string, addresses: readonly string[], localPort = 0) =>
  lab.program(
    lab.world,
    `const net = require('net'); let left = ${addresses.length};
     for (const host of ${JSON.stringify(addresses)}) {
       const s = net.connect({ host, port: 8080, localAddress: '${client}', localPort: ${localPort} || undefined });
       s.on('error', (e) => { console.log(e.code); process.exit(); });
       s.on('connect', () => s.write('?'));
       s.on('data', (d) => { process.stdout.write(d); if (--left === 0) process.exit(); });
     }
     setTimeout(() => { console.log('nothing'); process.exit(); }, 2000)`,
  );

const sayUdp = (client: string, address: string) =>
  lab.program(
    lab.world,
    `const s = require('dgram').createSocket('udp4');
     s.on('message', (d) => { process.stdout.write(d); process.exit(); });
     s.bind(0, '${client}', () => s.send('?', 8080, '${address}'));
     setTimeout(() => { console.log('nothing'); process.exit(); }, 2000)`,
  );

describe.each([
  ['with packets of bridges passing nftables', 1],
  ['with bridges left alone', 0],
])('a published port, %s', (_what, bridged) => {
  beforeAll(async () => {
    for (const host of hosts) await host.run('sysctl', '-qw', `net.bridge.bridge-nf-call-iptables=${bridged}`);
  });

  it.each([1, 2, 3])('shows a task on host %i the address of its client, from every ingress node', async (number) => {
    await serve(number);
    for (const host of hosts) {
      for (const client of clients) {
        expect(await say(client, [host.address])).toMatch(new RegExp(`^t${number} ${client}:`));
        expect(await sayUdp(client, host.address)).toMatch(new RegExp(`^t${number} ${client}:`));
      }
    }
  });

  it('shows a host that is a client by its own address', async () => {
    await serve(2);
    expect(await lab.program(hosts[2]!.netns, talk('10.90.0.1'))).toMatch(/^t2 10\.90\.0\.3:/);
  });

  it('leads a task back to its own host, and to itself', async () => {
    await serve(2);
    expect(await lab.program(tasks[1]!.netns, talk('10.90.0.1'))).toMatch(/^t2 /);
  });
});

const talk = (host: string) =>
  `const s = require('net').connect(8080, '${host}', () => s.write('?'));
   s.on('data', (d) => { process.stdout.write(d); process.exit(); });
   setTimeout(() => { console.log('nothing'); process.exit(); }, 2000)`;

describe('a client', () => {
  it('may use one of its ports to several ingress nodes at once', async () => {
    await serve(3);
    const answers = (await say('10.90.0.254', ['10.90.0.1', '10.90.0.2', '10.90.0.3'], 45_000)).trim().split('\n');
    expect(answers).toHaveLength(3);
    for (const answer of answers) expect(answer).toMatch(/^t3 10\.90\.0\.254:/);
    expect(new Set(answers).size).toBe(3);
  });

  it('goes on talking while the agents of all nodes die and come back', async () => {
    await serve(3);
    const talking = lab.program(
      lab.world,
      `const said = {}; let left = 3;
       for (const host of ['10.90.0.1', '10.90.0.2', '10.90.0.3']) {
         const s = require('net').connect(8080, host); said[host] = 0;
         s.on('error', () => {}); s.setNoDelay();
         s.on('connect', () => s.write('?'));
         s.on('data', () => { said[host]++; setTimeout(() => s.write('?'), 10); });
       }
       let before = {};
       const timer = setInterval(() => {
         for (const host in said) if (said[host] === before[host]) { console.log('silent', host); process.exit(); }
         before = { ...said };
       }, 400);
       setTimeout(() => { console.log('fine'); process.exit(); }, 4000);`,
    );
    for (const host of hosts) {
      await host.killAgent();
      host.startAgent();
    }
    await serve(3);
    await serve(1, 3);
    expect((await talking).trim()).toBe('fine');
  });

  it('fails in none of 200 requests a second by three nodes while backends change and an agent restarts', async () => {
    await serve(1, 2, 3);
    const loading = lab.program(
      lab.world,
      `const net = require('net'); const hosts = ['10.90.0.1', '10.90.0.2', '10.90.0.3'];
       let asked = 0, ended = 0, good = 0, bad = {}, strangers = 0, over = false; const fail = (why) => { bad[why] = (bad[why] ?? 0) + 1; };
       const report = () => { if (over && ended === asked) { console.log(JSON.stringify({ asked, good, bad, strangers })); process.exit(); } };
       const timer = setInterval(() => {
         if (late && asked > 600) { clearInterval(timer); over = true; report(); return; }
         const s = net.connect({ host: hosts[asked++ % 3], port: 8080, localAddress: '10.90.0.254' });
         let done = false; const end = (why) => { if (done) return; done = true; ended++; s.destroy(); if (why) fail(why); else good++; report(); };
         s.setTimeout(15000, () => end('timeout'));
         s.on('error', (e) => end(e.code)); s.on('close', () => end('closed'));
         s.on('connect', () => s.write('?'));
         s.on('data', (d) => { if (!String(d).includes(' 10.90.0.254:')) strangers++; end(); });
       }, 5);
       let late = false; setTimeout(() => { late = true; }, 6000);`,
    );
    const sets = [[1], [1, 2], [2, 3], [3], [1, 2, 3], [2], [1, 3], [1, 2, 3], [2, 3], [1, 2]];
    for (const [index, set] of sets.entries()) {
      if (index === 4) {
        await hosts[1]!.killAgent();
        hosts[1]!.startAgent();
      }
      await serve(...set);
      for (const host of hosts) {
        expect(await say('10.90.0.254', [host.address])).toMatch(new RegExp(`^t[${set.join('')}] 10\\.90\\.0\\.254:`));
      }
    }
    const { asked, good, bad, strangers } = JSON.parse(await loading);
    expect({ bad, strangers }).toEqual({ bad: {}, strangers: 0 });
    expect(good).toBe(asked);
    expect(good).toBeGreaterThan(600);
  });
});

describe('the way back', () => {
  const table = 0x4000 + 1;

  it.each([
    ['a rule', ['ip', 'rule', 'del', 'priority', '18201', 'table', String(table)], /rule 18201: fwmark 0x47004001/],
    ['all rules', ['sh', '-c', 'while ip rule del priority 18200; do :; done'], /rule 18200: not iif gantry0/],
    ['a route', ['ip', 'route', 'flush', 'table', String(table)], /route 0\.0\.0\.0\/0 via 10\.90\.0\.1 table 16385/],
  ])('gets %s back', async (_what, damage, message) => {
    const host = hosts[2] as LabHost;
    await serve(3);
    await host.repaired(() => host.run(...damage).catch(() => {}), message);
    expect(await say(worldAddress, ['10.90.0.1'])).toMatch(`t3 ${worldAddress}:`);
  });

  it('follows a host that has another MAC now', async () => {
    await serve(3);
    await lab.outside('ip', 'neigh', 'flush', 'all');
    await hosts[0]!.run('ip', 'link', 'set', 'eth0', 'address', '02:aa:bb:cc:dd:01');
    await eventually(async () => (await say(worldAddress, ['10.90.0.1'])).startsWith(`t3 ${worldAddress}:`));
    expect(await elements(hosts[2] as LabHost, 'ingress')).toContain('02:aa:bb:cc:dd:01 : 16385');
  });

  it('by a node that is gone is withdrawn, and what is foreign stays', async () => {
    const host = hosts[2] as LabHost;
    await host.run('ip', 'rule', 'add', 'fwmark', '7', 'lookup', '77', 'priority', '18201');
    await host.apply(hosts.slice(1), { attachments: [tasks[2] as never] });
    const rules = await host.run('ip', 'rule');
    expect(rules).not.toContain('lookup 16385');
    expect(rules).toContain('lookup 16386');
    expect(rules).toContain('fwmark 0x7 lookup 77');
    expect(await host.run('ip', 'route', 'show', 'table', 'all')).not.toContain('table 16385');
    for (const set of ['ingress', 'direct', 'returning', 'reply_marks']) {
      expect(await elements(host, set)).not.toMatch(/16385|10\.192\.1\.0/);
    }
    await host.apply([host], { attachments: [tasks[2] as never] });
    expect(await host.run('ip', 'rule')).not.toContain('18200:');
    await host.run('ip', 'rule', 'del', 'priority', '18201');
  });
});
