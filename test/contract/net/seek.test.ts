/** Who is next on the way to an address is asked for at once, and not when the kernel asks again; and not of everybody for ever. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let h1: LabHost;
let h2: LabHost;
const seek = (address: string, silentMs = 0, times = 1) => h1.call<number>('seek', { address, silentMs, times });
const state = async (address: string) => (await h1.run('ip', 'neighbour', 'show', address)).trim().split(' ').at(-1);

beforeAll(async () => {
  lab = await NetLab.start(3);
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

describe('a long silence', () => {
  const longMs = 60_000;
  const silence = (ignore: number) => h2.run('sysctl', '-qw', `net.ipv4.conf.all.arp_ignore=${ignore}`);
  /** How often h1 has asked for h2 so that all on the link heard it, and so that h2 did. */
  async function asked() {
    const { nftables } = JSON.parse(await lab.outside('nft', '-j', 'list', 'table', 'bridge', 'asked')) as {
      nftables: { rule?: { comment: string; expr: { counter?: { packets: number } }[] } }[];
    };
    const count = (whom: string) =>
      nftables.find(({ rule }) => rule?.comment === whom)?.rule?.expr.find(({ counter }) => counter)?.counter?.packets;
    return { all: count('h3'), h2: count('h2') };
  }

  beforeEach(async () => {
    // A fresh process knows nobody.
    await h1.killAgent();
    h1.startAgent();
    await silence(0);
    await h1.run('ip', 'neighbour', 'flush', 'to', h2.address);
    await lab.outside('sh', '-c', 'nft delete table bridge asked 2>/dev/null; true');
    const rule = (whom: string) => `iifname "h1" oifname "${whom}" arp operation request counter comment "${whom}";`;
    const chain = `chain heard { type filter hook forward priority 0; ${rule('h2')} ${rule('h3')} }`;
    await lab.outside('nft', `table bridge asked { ${chain}; }`);
  });

  it('is asked of him alone who had the address, when it has lasted', async () => {
    await send(h2.address);
    await eventually(async () => (await state(h2.address)) === 'REACHABLE');
    const before = await asked();
    await silence(8);
    await seek(h2.address, longMs, 20);
    await eventually(async () => (await asked()).h2 === before.h2! + 20);
    expect((await asked()).all).toBe(before.all);
    // As soon as the kernel has forgotten it: what it knew is remembered.
    await h1.run('ip', 'neighbour', 'flush', 'to', h2.address);
    await seek(h2.address, longMs, 20);
    await eventually(async () => (await asked()).h2 === before.h2! + 40);
    expect((await asked()).all).toBe(before.all);
    await seek(h2.address, 0, 3);
    await eventually(async () => (await asked()).all === before.all! + 3);
  });

  it('is answered by him, and the kernel has him again', async () => {
    await send(h2.address);
    await eventually(async () => (await state(h2.address)) === 'REACHABLE');
    await silence(8);
    await seek(h2.address, longMs);
    await h1.run('ip', 'neighbour', 'flush', 'to', h2.address);
    await send(h2.address);
    await eventually(async () => (await state(h2.address)) === 'INCOMPLETE');
    await silence(0);
    await seek(h2.address, longMs);
    await eventually(async () => (await state(h2.address)) === 'REACHABLE');
  });

  it('is asked of everybody, and seldom, where nobody is known', async () => {
    // Some seconds after it answered h1, h2 asks for it: then it would be known.
    await lab.outside('nft', 'add rule bridge asked heard iifname "h2" arp operation request drop');
    await silence(8);
    await h1.run('ip', 'neighbour', 'flush', 'to', h2.address);
    /** Whether everybody is asked more than so often, in many attempts. */
    const isAsked = async (before: number) => {
      await seek(h2.address, longMs, 20);
      return (await asked()).all! > before;
    };
    const begun = performance.now();
    await eventually(() => isAsked(0));
    const all = (await asked()).all!;
    await eventually(() => isAsked(all));
    expect((await asked()).all).toBeLessThanOrEqual(1 + (performance.now() - begun) / 1_000);
  });

  it('is asked of everybody at once when there is a carrier again, and of nobody while there is none', async () => {
    const hasCarrier = async () => (await h1.run('ip', 'link', 'show', 'eth0')).includes('LOWER_UP');
    await silence(8);
    await lab.outside('ip', 'link', 'set', 'h1', 'down');
    await eventually(async () => !(await hasCarrier()));
    await seek(h2.address, longMs, 20);
    await lab.outside('ip', 'link', 'set', 'h1', 'up');
    await eventually(hasCarrier);
    await eventually(async () => {
      await seek(h2.address, longMs, 2);
      return (await asked()).all! > 0;
    });
    const { all } = await asked();
    await seek(h2.address, longMs, 5);
    await eventually(async () => (await asked()).all! >= all! + 5);
  });
});
