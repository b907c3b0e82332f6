/** Hosts that share no link: VXLAN between them, packets that really pass a router, and all that is known of it put back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NetworkWanted } from '#net/network.ts';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

type Task = Awaited<ReturnType<LabHost['attach']>>;

let lab: NetLab;
/** h1 and h3 are on the first link, h2 on the second; the router between them lets packets of 1400 bytes pass. */
let hosts: LabHost[];
let [h1, h2, h3] = [] as unknown as [LabHost, LabHost, LabHost];
/** One on each host. */
let [t1, t2, t3] = [] as unknown as [Task, Task, Task];
const vip = '10.224.0.2';
const worldAddress = '10.90.0.254';
const ports = (['tcp', 'udp'] as const).map(
  (protocol) => ({ target: 7000, published: 8080, protocol, mode: 'ingress' }) as const,
);

beforeAll(async () => {
  lab = await NetLab.start(3, { routed: true, mtu: 1400 });
  hosts = [1, 2, 3].map((number) => lab.host(number));
  [h1, h2, h3] = hosts as [LabHost, LabHost, LabHost];
  await applyAll();
  [t1, t2, t3] = (await Promise.all(hosts.map((host) => host.attach(2)))) as [Task, Task, Task];
  for (const [index, task] of [t1, t2, t3].entries()) {
    await lab.serve(task.netns, 80, `t${index + 1}`);
    await lab.serveTalk(task.netns, 7000, `t${index + 1}`);
    lab.background(
      task.netns,
      `require('net').createServer((s) => { let n = 0; s.on('error', () => {});
         s.on('data', (d) => { n += d.length; if (n >= 1e6) s.end(String(n)); }); }).listen(7100);
       const u = require('dgram').createSocket('udp4');
       u.on('message', (d, from) => u.send(String(d.length), from.port, from.address)); u.bind(7100);`,
    );
  }
  await eventually(async () => (await routeTo(h1, '10.192.2.0/24')).includes('mtu 1350'));
  await eventually(async () => (await routeTo(h2, '10.192.1.0/24')).includes('mtu 1350'));
});

afterAll(() => lab?.stop());

const applyAll = (over: Partial<NetworkWanted> = {}, among: readonly LabHost[] = hosts) =>
  Promise.all(among.map((host) => host.apply(among, over)));
const routeTo = (host: LabHost, destination: string) => host.run('ip', 'route', 'show', destination);

/** Sends a megabyte from one task to another; how much arrived. */
const sendMegabyte = (from: Task, to: string) =>
  lab.program(
    from.netns,
    `const s = require('net').connect(7100, '${to}', () => s.write(Buffer.alloc(1e6)));
     s.on('data', (d) => process.stdout.write(d)); s.on('error', (e) => { console.log(e.code); process.exit(); });
     setTimeout(() => { console.log('stuck'); process.exit(); }, 8000).unref();`,
  );
const sendDatagram = (from: Task, to: string, size: number) =>
  lab.program(
    from.netns,
    `const s = require('dgram').createSocket('udp4');
     s.on('message', (d) => { process.stdout.write(d); process.exit(); });
     s.bind(0, () => s.send(Buffer.alloc(${size}), 7100, '${to}'));
     setTimeout(() => { console.log('nothing'); process.exit(); }, 500)`,
  );

describe('hosts on two links', () => {
  it('reach tasks of each other through a tunnel, and those on their own link by a route', async () => {
    expect(await routeTo(h1, '10.192.2.0/24')).toMatch(/via 10\.192\.2\.0 dev gantry-vx .*onlink/);
    expect(await routeTo(h1, '10.192.3.0/24')).toMatch(/via 10\.90\.0\.3 dev eth0/);
    expect(await lab.get(t1.netns, t2.address, 80)).toMatch(/^t2 10\.192\.1\.2:/);
    expect(await lab.get(t2.netns, t1.address, 80)).toMatch(/^t1 10\.192\.2\.2:/);
    expect(await lab.get(t3.netns, t2.address, 80)).toMatch(/^t2 10\.192\.3\.2:/);
  });

  it('reach tasks themselves, by their end of the tunnel', async () => {
    expect(await lab.get(h1.netns, t2.address, 80)).toMatch(/^t2 10\.192\.1\.0:/);
    expect(await lab.get(h2.netns, t3.address, 80)).toMatch(/^t3 10\.192\.2\.0:/);
  });

  it('balance a VIP over tasks on both sides', async () => {
    const backends = [t1, t2, t3].map(({ address }) => backend(address));
    await applyAll({ endpoints: [endpoint('web', { vip, backends })] });
    expect([...(await lab.spread(t2.netns, vip, 80, 40)).keys()].sort()).toEqual(['t1', 't2', 't3']);
  });

  it.each([1, 2, 3])('show a task on host %i the address of a client, from every ingress node', async (number) => {
    const backends = [backend(`10.192.${number}.2`)];
    await applyAll({ endpoints: [endpoint('web', { vip, ports, backends })] });
    for (const host of hosts) {
      const said = await lab.program(
        lab.world,
        `const s = require('net').connect(8080, '${host.address}', () => s.write('?'));
         s.on('data', (d) => { process.stdout.write(d); process.exit(); }); s.on('error', (e) => console.log(e.code));
         setTimeout(() => { console.log('nothing'); process.exit(); }, 3000).unref()`,
      );
      expect(said).toMatch(new RegExp(`^t${number} ${worldAddress}:`));
      expect(await lab.getUdp(lab.world, host.address, 8080, 0)).toMatch(new RegExp(`^t${number} ${worldAddress}:`));
    }
  });

  it('take packets of the tunnel from peers alone', async () => {
    const received = async () =>
      JSON.parse(await h1.run('ip', '-j', '-s', 'link', 'show', 'gantry-vx'))[0].stats64.rx.packets as number;
    const forge = (netns: string) =>
      lab.program(
        netns,
        `const s = require('dgram').createSocket('udp4'); const inner = Buffer.alloc(60);
         Buffer.from('02470ac0010002470ac00200' + '0800', 'hex').copy(inner);
         s.send(Buffer.concat([Buffer.from('0800000000004700', 'hex'), inner]), 4790, '${h1.address}', () => s.close());`,
      );
    const before = await received();
    await forge(lab.world);
    await forge(lab.router);
    expect(await received()).toBe(before);
    await forge(h2.netns);
    await eventually(async () => (await received()) > before);
  });
});

describe('over a path that is narrower than its links', () => {
  it('a megabyte and large datagrams pass, both ways', async () => {
    for (const [from, to] of [
      [t1, t2],
      [t2, t3],
    ] as const) {
      expect(await sendMegabyte(from, to.address)).toBe('1000000');
      // Linux lets no router cut what it sends: the first that is too wide tells it the width.
      for (const size of [1322, 1323, 1500, 8000])
        await eventually(async () => (await sendDatagram(from, to.address, size)) === String(size));
    }
  });

  it('a packet that nobody may fragment is told the width by its own host', async () => {
    const ping = (size: number) =>
      lab
        .inside(t1.netns, 'ping', '-c1', '-W1', '-M', 'do', '-s', String(size), t2.address)
        .catch((e) => e.stdout + e.stderr);
    expect(await ping(1322)).toContain('1 received');
    expect(await ping(1323)).toMatch(/mtu ?[=:] ?1350/);
  });

  it('another width is found within seconds of the router telling it', async () => {
    const width = async (mtu: number) => {
      for (const index of [0, 1]) {
        const way = [`10.90.${index}.0/24`, 'dev', `eth${index}`, 'proto', 'kernel', 'scope', 'link'];
        const from = ['src', `10.90.${index}.253`, 'mtu', 'lock', String(mtu)];
        await lab.inside(lab.router, 'ip', 'route', 'replace', ...way, ...from);
      }
    };
    await width(1300);
    // Anybody's packet that is too wide has the kernel hear of it.
    await h1.run('ping', '-c1', '-W1', '-M', 'do', '-s', '1350', h2.address).catch(() => '');
    await eventually(async () => (await routeTo(h1, '10.192.2.0/24')).includes('mtu 1250'));
    await width(1400);
  });

  it('and that lets no ICMP through: it is said, and all passes, in fragments where it must', async () => {
    await lab.inside(lab.router, 'nft', 'table ip mute { chain forward { type filter hook forward priority 0; }; }');
    await lab.inside(lab.router, 'nft', 'add rule ip mute forward meta l4proto icmp drop');
    await lab.inside(lab.router, 'nft', 'table ip mute { chain out { type filter hook output priority 0; }; }');
    await lab.inside(lab.router, 'nft', 'add rule ip mute out icmp type destination-unreachable drop');
    for (const host of hosts) {
      await host.killAgent();
      host.log = '';
      host.startAgent();
    }
    await applyAll();
    await eventually(() => h1.log.includes('answers no echo request'));
    expect(await routeTo(h1, '10.192.2.0/24')).toContain('mtu 1450');
    expect(await sendMegabyte(t1, t2.address)).toBe('1000000');
    expect(await sendMegabyte(t2, t3.address)).toBe('1000000');
    expect(await sendDatagram(t1, t2.address, 8000)).toBe('8000');
    await lab.inside(lab.router, 'nft', 'delete', 'table', 'ip', 'mute');
  });
});

describe('repair', () => {
  it.each([
    [
      'a forwarding entry',
      'bridge fdb del 02:47:0a:c0:02:00 dev gantry-vx',
      /tunnel entry .* to 10\.90\.1\.2 was missing/,
    ],
    [
      'a forwarding entry that leads elsewhere',
      'bridge fdb replace 02:47:0a:c0:02:00 dev gantry-vx dst 10.90.1.9',
      /tunnel entry .* led to 10\.90\.1\.9/,
    ],
    ['a neighbour', 'ip neigh del 10.192.2.0 dev gantry-vx', /neighbour 10\.192\.2\.0 .* was missing/],
    ['the device', 'ip link del gantry-vx', /the tunnel gantry-vx was missing/],
    ['a device that is down', 'ip link set gantry-vx down', /the tunnel gantry-vx was down/],
    ['its address', 'ip address flush dev gantry-vx', /address 10\.192\.1\.0\/32 of the tunnel was missing/],
    ['its MTU', 'ip link set gantry-vx mtu 1000', /gantry-vx had .* MTU 1000/],
    [
      'a route',
      'ip route del 10.192.2.0/24',
      /route 10\.192\.2\.0\/24 via 10\.192\.2\.0 dev gantry-vx onlink.* was missing/,
    ],
    ['its reverse path check', 'sysctl -qw net.ipv4.conf.gantry-vx.rp_filter=1', /gantry-vx\.rp_filter was 1/],
  ])('puts back %s', async (_what, damage, message) => {
    await h1.repaired(() => h1.run(...damage.split(' ')), message);
    await eventually(async () => (await lab.get(t1.netns, t2.address, 80)).startsWith('t2 '));
  });
});

describe('a stream from task to task', () => {
  /** Sends a few bytes every 5 ms; `longest`: the longest time nothing came back, so far, ms. */
  async function stream(from: Task, to: Task) {
    const { output, stop } = lab.background(
      from.netns,
      `const s = require('net').connect(7000, '${to.address}'); let last = performance.now(), longest = 0;
       s.setNoDelay(true); s.on('connect', () => { last = performance.now(); setInterval(() => s.write('?'), 5); });
       s.on('data', () => { const now = performance.now(); longest = Math.max(longest, now - last); last = now; });
       s.on('close', () => { longest = Infinity; });
       setInterval(() => console.log(Math.max(longest, performance.now() - last)), 20);`,
    );
    await eventually(() => output().split('\n').length > 3);
    return { longest: () => Number(output().trim().split('\n').at(-1)), stop };
  }

  it('is not disturbed by a third node that comes and goes', async () => {
    await applyAll();
    const { longest, stop } = await stream(t1, t2);
    for (let round = 0; round < 5; round++) {
      await applyAll({}, [h1, h2]);
      await applyAll();
    }
    await eventually(async () => (await lab.get(t3.netns, t2.address, 80)).startsWith('t2 '));
    expect(longest()).toBeLessThan(150);
    stop();
  });

  it('goes on when the cluster is encapsulated, and is not any more', async () => {
    const { longest, stop } = await stream(t1, t3);
    await applyAll({ encapsulation: 'always' });
    expect(await routeTo(h1, '10.192.3.0/24')).toContain('dev gantry-vx');
    expect(await lab.get(t1.netns, t3.address, 80)).toMatch(/^t3 10\.192\.1\.2:/);
    await applyAll({ encapsulation: 'auto' });
    expect(await lab.get(t1.netns, t3.address, 80)).toMatch(/^t3 10\.192\.1\.2:/);
    expect(longest()).toBeLessThan(1000);
    stop();
  });
});

describe('a restart of the agent', () => {
  it('adopts the tunnel as it is', async () => {
    const state = async () =>
      [
        await h1.run('ip', '-o', 'link', 'show', 'gantry-vx'),
        await h1.run('bridge', 'fdb', 'show', 'dev', 'gantry-vx'),
      ].join();
    await applyAll();
    const before = await state();
    await h1.killAgent();
    expect(await lab.get(t1.netns, t2.address, 80)).toMatch(/^t2 /);
    h1.startAgent();
    await h1.apply(hosts);
    expect(await state()).toBe(before);
    expect(h1.repairs).toEqual([]);
  });

  it('takes the tunnel away where no peer needs it any more', async () => {
    await applyAll({}, [h1, h3]);
    expect(await h1.run('ip', '-br', 'link')).not.toContain('gantry-vx');
    expect(await lab.get(t1.netns, t3.address, 80)).toMatch(/^t3 /);
    await applyAll();
    expect(await lab.get(t1.netns, t2.address, 80)).toMatch(/^t2 /);
  });
});
