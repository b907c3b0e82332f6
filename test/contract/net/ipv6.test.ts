/** Both families, in packets: tasks on networks with IPv6 have an address of each, and the same rules. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Attachment } from '#net/network.ts';
import { embed6 } from '#net/plan/cidr6.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import { backend, endpoint, network, peer } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

type Task = Attachment & { readonly netns: string };
const network6 = 'fd47::/96';
const six = (address: string) => embed6(network6, address);
const networks = [network('dual', 1, { ipv6: true }), network('old', 2), network('other', 3, { ipv6: true })];
const worldAddress6 = 'fd00:90::254';

let lab: NetLab;
let hosts: LabHost[];
let h1: LabHost;
let a: Task;
let b: Task;
let c: Task;
let other: Task;
let old: Task;

beforeAll(async () => {
  lab = await NetLab.start(2);
  hosts = [lab.host(1), lab.host(2)];
  h1 = lab.host(1);
  await lab.outside('ip', 'address', 'add', `${worldAddress6}/64`, 'dev', 'switch', 'nodad');
  await lab.outside('ip', 'address', 'add', '2001:db8::1/128', 'dev', 'lo', 'nodad');
  for (const host of hosts) await host.run('ip', '-6', 'route', 'add', 'default', 'via', worldAddress6);
  await hold([]);
  a = await h1.attach(2, { networks: ['dual'] });
  b = await h1.attach(3, { networks: ['dual'] });
  c = await lab.host(2).attach(2, { networks: ['dual'] });
  other = await h1.attach(4, { networks: ['other'] });
  old = await h1.attach(5, { networks: ['old'] });
  for (const [name, task] of Object.entries({ a, b, c, other })) await serve(task.netns, 80, name);
});

afterAll(() => lab?.stop());

async function hold(endpoints: readonly Endpoint[]) {
  const peers = hosts.map((host) =>
    peer(host.name, host.address, host.subnet, { nodeId: host.nodeId, address6: host.address6 }),
  );
  const tasks = [a, b, c, other, old].filter((task) => task !== undefined);
  for (const host of hosts) {
    const prefix = host.subnet.replace('0/24', '');
    const attachments = tasks.filter((task) => task.address.startsWith(prefix));
    const own = { address6: host.address6, peers, endpoints, networks, network6, attachments };
    await host.apply(hosts, own);
  }
}

const on = (name: string) => ({ networks: [{ network: name, aliases: [] }], ipv6: name !== 'old' });
const web = (tasks: readonly Task[], over: Partial<Endpoint> = {}) =>
  endpoint('web', { ...on('dual'), vip: '10.224.0.2', backends: tasks.map((task) => backend(task.address)), ...over });
const all = () => [
  web([a, b, c], { ports: [{ target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' }] }),
  endpoint('other', { ...on('other'), vip: '10.224.0.3', backends: [backend(other.address)] }),
  endpoint('old', { ...on('old'), vip: '10.224.0.4', backends: [backend(old.address)] }),
];

async function serve(netns: string, port: number, name: string): Promise<void> {
  const program = `require('net').createServer((s) => { s.on('error', () => {});
    s.end('${name} ' + s.remoteAddress + '\\n'); }).listen(${port}, '::')`;
  lab.background(netns, program);
  await eventually(async () => (await lab.inside(netns, 'ss', '-Hltn')).includes(`:${port} `));
}

/** What a server says, or the error's code, and whether it was there at once. */
const get = async (netns: string, address: string, port = 80) =>
  (
    await lab.program(
      netns,
      `const s = require('net').connect(${port}, '${address}');
       s.on('error', (e) => { console.log(e.code); process.exit(); });
       s.on('data', (d) => { process.stdout.write(d); process.exit(); });
       setTimeout(() => { console.log('nothing'); process.exit(); }, 2000);`,
    )
  ).trim();

describe('a task on a network with IPv6', () => {
  it('reaches who shares it, on its host and on another, with its own address', async () => {
    await hold(all());
    expect(await get(a.netns, six(b.address))).toBe(`b ${six(a.address)}`);
    expect(await get(a.netns, six(c.address))).toBe(`c ${six(a.address)}`);
    expect(await get(c.netns, six(a.address))).toBe(`a ${six(c.address)}`);
  });

  it('is refused at once by who shares none', async () => {
    expect(await get(a.netns, six(other.address))).toBe('ECONNREFUSED');
    expect(await get(other.netns, six(c.address))).toBe('ECONNREFUSED');
  });

  it('reaches services by their VIPs, itself among them', async () => {
    const seen = new Set<string>();
    for (let round = 0; round < 25; round++) seen.add((await get(c.netns, six('10.224.0.2'))).split(' ')[0] as string);
    expect([...seen].sort()).toEqual(['a', 'b', 'c']);
    await hold([web([a])]);
    expect(await get(a.netns, six('10.224.0.2'))).toMatch(/^a /);
    expect(await get(h1.netns, six('10.224.0.2'))).toMatch(/^a /);
    await hold([web([])]);
    expect(await get(a.netns, six('10.224.0.2'))).toBe('ECONNREFUSED');
    await hold(all());
  });

  it('reaches the outside, masqueraded as its host', async () => {
    await serve(lab.world, 8300, 'world');
    expect(await get(a.netns, '2001:db8::1', 8300)).toBe(`world ${h1.address6}`);
  });

  it('is published to clients outside by every node, which keep their address on the node that they ask', async () => {
    await hold([web([a], { ports: [{ target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' }] })]);
    expect(await get(lab.world, h1.address6, 8080)).toBe(`a ${worldAddress6}`);
    expect(await get(lab.world, lab.host(2).address6, 8080)).toMatch(/^a /);
    await hold(all());
  });

  it('is told how narrow the way is', async () => {
    const text = await lab.inside(a.netns, 'ping', '-6', '-c1', '-W2', '-s', '1200', six(c.address));
    expect(text).toContain('1 received');
  });
});

describe('a task on networks without', () => {
  it('has no IPv6 address, and is not reached by one of another task', async () => {
    expect(await lab.inside(old.netns, 'ip', '-6', 'address', 'show', 'dev', 'eth0')).toBe('');
    expect(await get(a.netns, six(old.address))).toBe('ECONNREFUSED');
  });
});

describe('what is ours of IPv6', () => {
  it.each([
    ['the table', ['nft', 'delete', 'table', 'ip6', 'gantry'], /table ip6 gantry was missing/],
    [
      'the address of the bridge',
      ['ip', '-6', 'address', 'del', 'fd47::ac0:101/120', 'dev', 'gantry0'],
      /fd47::ac0:101/,
    ],
    ['forwarding', ['sysctl', '-qw', 'net.ipv6.conf.all.forwarding=0'], /ipv6\.conf\.all\.forwarding was 0/],
  ])('gets %s back', async (_what, damage, message) => {
    await h1.repaired(() => h1.run(...damage), message);
    await eventually(async () => (await get(a.netns, six(c.address))).startsWith('c '));
  });

  it('goes with the last network that has it', async () => {
    await h1.apply(hosts, { networks: [network('old', 2)], attachments: [old] });
    expect(await h1.run('nft', 'list', 'tables')).not.toContain('ip6 gantry');
    expect(await h1.run('ip', '-6', 'address', 'show', 'dev', 'gantry0')).not.toContain('fd47::');
    await hold(all());
    expect(await h1.run('nft', 'list', 'tables')).toContain('ip6 gantry');
  });
});
