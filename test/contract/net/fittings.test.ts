/** What tasks have beside their primary address: addresses of networks, links on the hosts' networks, limits of what they send and get. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Attachment } from '#net/network.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import { backend, endpoint, network } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab, worldAddress } from '#test/support/net-lab.ts';

type Task = Attachment & { readonly netns: string };
const subnet = (range: string, gateway = '') => ({ subnet: range, gateway, ipRange: '', reserved: [] });
const networks: readonly ClusterNetwork[] = [
  network('shop', 1),
  network('fixed', 2, { subnets: [subnet('172.28.0.0/16')] }),
  network('lan', 3, { driver: 'macvlan', parent: 'eth0', subnets: [subnet('10.90.0.0/24', '10.90.0.254')] }),
  network('nowhere', 4, { driver: 'macvlan', parent: 'eth7', subnets: [subnet('10.91.0.0/24')] }),
];

let lab: NetLab;
let h1: LabHost;
let hosts: LabHost[];

beforeAll(async () => {
  lab = await NetLab.start(2);
  hosts = [lab.host(1), lab.host(2)];
  h1 = lab.host(1);
  await hold([], []);
});

afterAll(() => lab?.stop());

async function hold(endpoints: readonly Endpoint[], tasks: readonly Task[]) {
  for (const host of hosts) {
    const prefix = host.subnet.replace('0/24', '');
    const attachments = tasks.filter((task) => task.address.startsWith(prefix));
    await host.apply(hosts, { endpoints, networks, attachments });
  }
}

const serviceOf = (tasks: readonly Task[], name: string, over: Partial<Endpoint> = {}) =>
  endpoint('web', {
    networks: [{ network: name, aliases: [] }],
    backends: tasks.map(({ address, addresses }) => backend(address, { addresses })),
    ...over,
  });

describe('further addresses', () => {
  const fixed = (address: string) => ({ networks: ['fixed'], addresses: [{ network: 'fixed', address }] });

  it('are reached, and sent from, by who shares a network', async () => {
    const web = await h1.attach(10, fixed('172.28.0.10'));
    const client = await h1.attach(11, fixed('172.28.0.11'));
    const stranger = await h1.attach(12, { networks: ['shop'] });
    await hold([serviceOf([web, client], 'fixed')], [web, client, stranger]);
    await lab.serve(web.netns, 80, 'web');
    expect(await lab.get(client.netns, '172.28.0.10', 80)).toMatch(/^web 172\.28\.0\.11:/);
    expect(await lab.get(h1.netns, '172.28.0.10', 80)).toMatch(/^web /);
    await expect(lab.get(stranger.netns, '172.28.0.10', 80)).rejects.toThrow(/refused/);
    // Neither may one use another's.
    await lab.inside(stranger.netns, 'ip', 'address', 'add', '172.28.0.11/32', 'dev', 'lo');
    await expect(
      lab.inside(stranger.netns, 'ping', '-c1', '-W1', '-I', '172.28.0.11', '172.28.0.10'),
    ).rejects.toThrow();
  });

  it('are put back when they are taken away, with their routes', async () => {
    const web = await h1.attach(13, fixed('172.28.0.13'));
    await hold([serviceOf([web], 'fixed')], [web]);
    h1.repairs.length = 0;
    await lab.inside(web.netns, 'ip', 'address', 'del', '172.28.0.13/32', 'dev', 'eth0');
    await h1.run('ip', 'route', 'del', '172.28.0.13/32');
    await eventually(() => h1.repairs.some((text) => /route 172\.28\.0\.13\/32 dev gantry0 was missing/.test(text)));
    await eventually(async () => (await lab.inside(web.netns, 'ip', 'address')).includes('172.28.0.13/32'));
    expect(await lab.inside(web.netns, 'ip', 'route')).toContain('172.28.0.0/16 via 10.192.1.1 dev eth0');
  });
});

describe('a task on a network of the hosts', () => {
  const onLan = (address: string, over: Partial<Attachment> = {}) => ({
    networks: ['lan'],
    addresses: [{ network: 'lan', address }],
    ...over,
  });

  it('has a link, an address and the way out there', async () => {
    const web = await h1.attach(20, onLan('10.90.0.50'));
    await hold([], [web]);
    const stop = await lab.serve(web.netns, 80, 'web');
    expect(await lab.get(lab.world, '10.90.0.50', 80)).toMatch(/^web 10\.90\.0\.254:/);
    await lab.serve(lab.world, 8200, 'world');
    expect(await lab.get(web.netns, worldAddress, 8200)).toMatch(/^world 10\.90\.0\.50:/);
    // To the cluster by its own way.
    expect(await lab.inside(web.netns, 'ip', 'route', 'get', '10.224.0.9')).toContain('via 10.192.1.1 dev eth0');
    stop();
    await h1.call('detach', web.taskId);
    await expect(lab.get(lab.world, '10.90.0.50', 80)).rejects.toThrow();
  });

  it('that is on one of the cluster too leaves by its node', async () => {
    const web = await h1.attach(21, onLan('10.90.0.51', { networks: ['lan', 'shop'] }));
    await hold([], [web]);
    expect(await lab.inside(web.netns, 'ip', 'route', 'get', worldAddress)).toContain('via 10.192.1.1 dev eth0');
  });

  it('that its node has no link for is refused, by name', async () => {
    const attaching = h1.attach(22, {
      networks: ['nowhere'],
      addresses: [{ network: 'nowhere', address: '10.91.0.5' }],
    });
    await expect(attaching).rejects.toMatchObject({
      message: expect.stringMatching(/no link eth7, the parent of network nowhere/),
      code: 'precondition',
    });
  });
});

describe('bandwidth', () => {
  /** Megabits per second that flow from a namespace to an address, where somebody listens with iperf3. */
  const measure = async (from: string, address: string) => {
    const text = await lab.inside(from, 'iperf3', '-c', address, '-t', '2', '-O', '1', '-J');
    return (JSON.parse(text).end.sum_received.bits_per_second as number) / 1e6;
  };

  it('is what was said, both ways, and again after it was taken off by hand', async () => {
    const bandwidth = { egressBitsPerSecond: 40e6, ingressBitsPerSecond: 20e6 };
    const slow = await h1.attach(30, { networks: ['shop'], bandwidth });
    const free = await h1.attach(31, { networks: ['shop'] });
    await hold([serviceOf([slow, free], 'shop')], [slow, free]);
    for (const task of [slow, free]) await lab.inside(task.netns, 'iperf3', '-s', '-D', '-1');
    const within = (value: number, of: number) => expect(Math.abs(value / of - 1)).toBeLessThan(0.15);
    within(await measure(slow.netns, free.address), 40);
    within(await measure(free.netns, slow.address), 20);
    h1.repairs.length = 0;
    await h1.run('tc', 'qdisc', 'del', 'dev', `gt${slow.taskId.slice(0, 13)}`, 'root');
    await eventually(() => h1.repairs.some((text) => /ingress limit of 20000000 bit\/s .* was missing/.test(text)));
    expect(await h1.run('tc', 'qdisc', 'show')).toContain('rate 20Mbit');
  });
});
