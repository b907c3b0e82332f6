/** Nothing of others is touched at start, at stop and in a crash, and nothing of ours stays after a reset; on real kernels. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';
import { networkState } from '#test/support/network-state.ts';

let lab: NetLab;
let host: LabHost;
let hosts: LabHost[];
const vip = '10.224.0.2';
const port = { target: 80, published: 8080, protocol: 'tcp', mode: 'ingress' } as const;

/** What an operator may have: tables in several families, one of the name of ours in a foreign family among them, rules, routes, links. */
const foreign = `
table inet filter { chain input { type filter hook input priority -10; tcp dport 22 accept; }; }
table ip nat { chain post { type nat hook postrouting priority 90; oifname "other0" masquerade; }; }
table bridge filter { chain forward { type filter hook forward priority 0; }; }
table ip6 mine { set s { type ipv6_addr; elements = { fd00::9 }; }; }
`;

beforeAll(async () => {
  lab = await NetLab.start(2);
  host = lab.host(1);
  hosts = [host, lab.host(2)];
  await host.run('nft', foreign);
  await host.run('ip', 'link', 'add', 'other0', 'type', 'bridge');
  await host.run('ip', 'link', 'set', 'other0', 'up');
  await host.run('ip', 'address', 'add', '10.77.0.1/24', 'dev', 'other0');
  await host.run('ip', 'route', 'add', '203.0.113.0/24', 'via', '10.90.0.254', 'metric', '71');
  await host.run('ip', 'route', 'add', '203.0.113.0/24', 'via', '10.90.0.254', 'proto', '71');
  await host.run('ip', 'route', 'add', 'default', 'via', '10.90.0.254', 'table', '16400');
  await host.run('ip', 'rule', 'add', 'fwmark', '5', 'lookup', '16400', 'priority', '18201');
  await host.run('sysctl', '-qw', 'net.ipv4.ip_forward=0');
});
afterAll(() => lab?.stop());

async function work() {
  for (const one of hosts) await one.apply(hosts);
  const task = await host.attach(2);
  const web = endpoint('web', { vip, ports: [port], backends: [backend(task.address)] });
  await host.apply(hosts, { endpoints: [web], attachments: [task] });
  await lab.serve(task.netns, 80, 'web');
  expect(await lab.get(lab.world, host.address, 8080)).toMatch(/^web /);
  return task;
}

it('what others have stays as it is at start, in a crash and at stop', async () => {
  const before = await networkState(host.netns);
  await work();
  expect((await networkState(host.netns)).foreign).toEqual(before.foreign);
  await host.killAgent();
  expect((await networkState(host.netns)).foreign).toEqual(before.foreign);
  host.startAgent();
  await host.apply(hosts);
  expect((await networkState(host.netns)).foreign).toEqual(before.foreign);
  await host.call('close');
  const stopped = await networkState(host.netns);
  expect(stopped.foreign).toEqual(before.foreign);
  expect(stopped.own.length).toBeGreaterThan(5);
});

it('a reset leaves the host as it was, its settings too, and may be repeated', async () => {
  await host.killAgent();
  const forwarding = async () => (await host.run('sysctl', '-n', 'net.ipv4.ip_forward')).trim();
  expect(await forwarding()).toBe('1');
  const { foreign: before } = await networkState(host.netns);
  host.startAgent();
  const removed = await host.call<string[]>('reset');
  expect(removed).toEqual(
    expect.arrayContaining(['table ip gantry', 'link gantry0', 'net.ipv4.ip_forward is 0 again']),
  );
  await eventually(async () => {
    expect(await networkState(host.netns)).toEqual({ own: [], foreign: before });
    return true;
  });
  expect(await forwarding()).toBe('0');
  await host.killAgent();
  host.startAgent();
  expect(await host.call('reset')).toEqual([]);
});

it('a host that was reset can be used again', async () => {
  await host.killAgent();
  host.startAgent();
  await work();
});
