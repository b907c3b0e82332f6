/** A cluster that is encrypted: nothing of what tasks say is on the wire, whatever breaks. */
import fs from 'node:fs';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { NetworkWanted } from '#net/network.ts';
import { backend, endpoint } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

type Task = Awaited<ReturnType<LabHost['attach']>>;

let lab: NetLab;
let hosts: LabHost[];
let [h1, h3] = [] as unknown as [LabHost, LabHost];
let [t1, t2, t3] = [] as unknown as [Task, Task, Task];
let keys: string[];
/** What tasks say, and a wire must not. */
const secret = 'the sardines swim at midnight';
const worldAddress = '10.90.0.254';
const ports = [{ target: 7000, published: 8080, protocol: 'tcp', mode: 'ingress' }] as const;

beforeAll(async () => {
  lab = await NetLab.start(3, { routed: true });
  hosts = [1, 2, 3].map((number) => lab.host(number));
  [h1, , h3] = hosts as [LabHost, LabHost, LabHost];
  keys = await Promise.all(hosts.map((host) => host.call<string>('wireguardKey')));
  await applyAll();
  [t1, t2, t3] = (await Promise.all(hosts.map((host) => host.attach(2)))) as [Task, Task, Task];
  for (const [index, task] of [t1, t2, t3].entries()) {
    await lab.serve(task.netns, 80, `t${index + 1} ${secret}`);
    await lab.serveTalk(task.netns, 7000, `t${index + 1} ${secret}`);
  }
});

afterAll(() => lab?.stop());

const apply = (host: LabHost, over: Partial<NetworkWanted> = {}, known: readonly string[] = keys) => {
  const wanted = host.wanted(hosts, { encryption: 'wireguard', ...over });
  const peers = wanted.peers.map((peer, index) => ({ ...peer, wireguardKey: known[index] ?? '' }));
  return host.call('apply', { ...wanted, peers });
};
const applyAll = (over: Partial<NetworkWanted> = {}, known?: readonly string[]) =>
  Promise.all(hosts.map((host) => apply(host, over, known)));
const deviceIndex = async (host: LabHost) =>
  JSON.parse(await host.run('ip', '-j', 'link', 'show', 'gantry-wg'))[0].ifindex;
const processOf = async (host: LabHost) =>
  (await host.run('sh', '-c', `for p in $(ip netns pids ${host.netnsName}); do echo $p $(cat /proc/$p/comm); done`))
    .split('\n')
    .find((line) => line.endsWith(' wireguard-go'))
    ?.split(' ')[0];
/** Talks for a while, and gives what was on the wire meanwhile. */
async function overheard(talk: () => Promise<unknown>): Promise<Buffer> {
  const { stop } = await lab.capture();
  await talk();
  return stop();
}

describe('tasks of an encrypted cluster', () => {
  it('reach each other, on one link or two, and balance', async () => {
    // Where both begin to talk at one moment, WireGuard takes five seconds.
    for (const to of [t2, t3])
      await eventually(() =>
        lab.get(t1.netns, to.address, 80).then(
          () => true,
          () => false,
        ),
      );
    expect(await lab.get(t1.netns, t2.address, 80)).toMatch(/^t2 .* 10\.192\.1\.2:/);
    expect(await lab.get(t1.netns, t3.address, 80)).toMatch(/^t3 .* 10\.192\.1\.2:/);
    expect(await lab.get(h1.netns, t2.address, 80)).toMatch(/^t2 .* 10\.192\.1\.0:/);
    expect(await h1.run('ip', 'route', 'show', '10.192.3.0/24')).toContain('dev gantry-vx');
    await applyAll({ endpoints: [endpoint('web', { backends: [t1, t2, t3].map(({ address }) => backend(address)) })] });
    expect([...(await lab.spread(t2.netns, '10.224.0.2', 80, 40)).keys()].sort()).toEqual(['t1', 't2', 't3']);
  });

  it('say nothing that can be read on the wire, which would show it in clear', async () => {
    const talk = () => lab.get(t1.netns, t2.address, 80);
    expect((await overheard(talk)).includes(secret)).toBe(false);
    await applyAll({ encryption: '' });
    expect((await overheard(talk)).includes(secret)).toBe(true);
    await applyAll();
    expect((await overheard(talk)).includes(secret)).toBe(false);
  });

  it('see the address of a client that came in by another node, and their answers to it are encrypted, too', async () => {
    await applyAll({ endpoints: [endpoint('web', { ports, backends: [backend(t2.address)] })] });
    const ask = () =>
      lab.program(
        lab.world,
        `const s = require('net').connect(8080, '${h1.address}', () => s.write('?'));
         s.on('data', (d) => { process.stdout.write(d); process.exit(); }); s.on('error', (e) => console.log(e.code));
         setTimeout(() => { console.log('nothing'); process.exit(); }, 3000).unref()`,
      );
    const wire = await overheard(async () => expect(await ask()).toMatch(new RegExp(`^t2 .* ${worldAddress}:`)));
    expect(wire.includes(secret)).toBe(false);
    await applyAll();
  });
});

describe('its key', () => {
  it('is made once, for the agent alone to read, and its public half is told', async () => {
    const file = path.join(h1.runDir, 'wireguard.key');
    const { mode } = fs.statSync(file);
    expect(mode & 0o777).toBe(0o600);
    const before = fs.readFileSync(file, 'utf8');
    expect(await h1.call('wireguardKey')).toMatch(/^[A-Za-z0-9+/]{43}=$/);
    expect(await h1.call('wireguardKey')).toBe(keys[0]);
    expect(fs.readFileSync(file, 'utf8')).toBe(before);
    expect(fs.readdirSync(h1.runDir).filter((name) => name.endsWith('.conf') && name !== 'resolv.conf')).toEqual([]);
  });
});

describe('when something breaks', () => {
  /** Asks all the time, until `stop`. */
  const chatter = (from: Task, to: Task) =>
    lab.background(
      from.netns,
      `setInterval(() => { const s = require('net').connect(7000, '${to.address}', () => s.write('${secret}'));
         s.setTimeout(500, () => s.destroy()); s.on('error', () => {}); s.on('data', () => { console.log('heard'); s.end(); }); }, 20);
       const u = require('dgram').createSocket('udp4'); u.on('error', () => {});
       setInterval(() => u.send('${secret}', 7000, '${to.address}', () => {}), 5);`,
    );

  it.each([
    ['the process of the tunnel is killed', async () => h1.run('kill', '-9', (await processOf(h1)) ?? '')],
    ['the device is deleted', () => h1.run('ip', 'link', 'del', 'gantry-wg')],
    [
      'both devices and all routes are deleted',
      () => h1.run('sh', '-c', 'ip link del gantry-wg; ip link del gantry-vx; ip route flush proto 71'),
    ],
  ] as const)('%s: all is back, and nothing was said in clear meanwhile', async (_what, damage) => {
    const { output, stop } = chatter(t1, t2);
    await eventually(() => output().includes('heard'));
    const index = await deviceIndex(h1);
    const wire = await overheard(async () => {
      await h1.repaired(damage, /the tunnel gantry-wg was missing/);
      const heard = output().length;
      await eventually(() => output().length > heard);
    });
    expect(wire.includes(secret)).toBe(false);
    expect(await deviceIndex(h1)).not.toBe(index);
    stop();
  });

  it('an agent that starts again goes on with the process and the device that are there', async () => {
    const [pid, index] = [await processOf(h1), await deviceIndex(h1)];
    await h1.killAgent();
    expect(await lab.get(t1.netns, t2.address, 80)).toMatch(/^t2 /);
    h1.startAgent();
    await apply(h1);
    expect([await processOf(h1), await deviceIndex(h1)]).toEqual([pid, index]);
    expect(await lab.get(t1.netns, t2.address, 80)).toMatch(/^t2 /);
  });

  it('a peer that cannot do WireGuard is not reached at all, by nobody, and it is said what to install there', async () => {
    h1.log = '';
    await applyAll({}, [keys[0] ?? '', '', keys[2] ?? '']);
    const wire = await overheard(async () => {
      await expect(lab.get(t1.netns, t2.address, 80)).rejects.toThrow();
      await expect(lab.get(t2.netns, t1.address, 80)).rejects.toThrow();
    });
    expect(wire.includes(secret)).toBe(false);
    expect(await lab.get(t1.netns, t3.address, 80)).toMatch(/^t3 /);
    expect(h1.log).toMatch(/h2 is not reached.*10\.90\.1\.2 cannot do WireGuard.*install wireguard-tools/s);
    await applyAll();
    await eventually(async () => (await lab.get(t1.netns, t2.address, 80)).startsWith('t2 '));
  });

  it('the device and its process go where the cluster is not encrypted any more', async () => {
    const pid = await processOf(h3);
    await applyAll({ encryption: '' });
    expect(await h3.run('ip', '-br', 'link')).not.toContain('gantry-wg');
    await eventually(async () => (await processOf(h3)) === undefined);
    expect(pid).toBeDefined();
    expect(await lab.get(t1.netns, t2.address, 80)).toMatch(/^t2 /);
  });
});
