/** Who is next on the way to an address is asked for at once, and not when the kernel asks again. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let h1: LabHost;
let h2: LabHost;
const seeker = new URL('../../../net/host/seek.ts', import.meta.url).pathname;
const seek = (address: string) => lab.program(h1.netns, `import('${seeker}').then(({ seek }) => seek('${address}'))`);
const state = async (address: string) => (await h1.run('ip', 'neighbour', 'show', address)).trim().split(' ').at(-1);

beforeAll(async () => {
  lab = await NetLab.start(2);
  [h1, h2] = [lab.host(1), lab.host(2)];
  // The kernel asks, and would ask again in an hour.
  await h1.run('sysctl', '-qw', 'net.ipv4.neigh.eth0.retrans_time_ms=3600000');
});
afterAll(() => lab?.stop());

const send = (address: string) =>
  lab.program(
    h1.netns,
    `const s = require('dgram').createSocket('udp4'); s.send('?', 9, '${address}', () => s.close());`,
  );

it('finds a neighbour that was not there when the kernel asked', async () => {
  await h2.run('ip', 'address', 'del', `${h2.address}/24`, 'dev', 'eth0');
  await send(h2.address);
  await eventually(async () => (await state(h2.address)) === 'INCOMPLETE');
  await h2.run('ip', 'address', 'add', `${h2.address}/24`, 'dev', 'eth0');
  expect(await state(h2.address)).toBe('INCOMPLETE');
  await seek(h2.address);
  await eventually(async () => (await state(h2.address)) === 'REACHABLE');
});

it('asks for the router of an address that is not on the link', async () => {
  const [, router = ''] = /via (\S+)/.exec(await h1.run('ip', 'route', 'get', '203.0.113.9')) ?? [];
  await h1.run('ip', 'neighbour', 'flush', 'to', router);
  await lab.outside('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=8');
  await send('203.0.113.9');
  await eventually(async () => (await state(router)) === 'INCOMPLETE');
  await lab.outside('sysctl', '-qw', 'net.ipv4.conf.all.arp_ignore=0');
  await seek('203.0.113.9');
  await eventually(async () => (await state(router)) === 'REACHABLE');
});

it('does nothing for an address of the host itself, and for one without a way', async () => {
  await seek(h1.address);
  await seek('127.0.0.1');
  await h1.run('ip', 'route', 'add', 'unreachable', '192.0.2.0/24');
  await seek('192.0.2.1');
});
