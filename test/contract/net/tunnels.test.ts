/** Hosts that share no link: VXLAN between them, packets that really pass a router, and all that is known of it put back. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

let lab: NetLab;
let hosts: LabHost[];
/** One task on each host: h1 and h3 on the first link, h2 on the second. */
let tasks: Awaited<ReturnType<LabHost['attach']>>[];
const _vip = '10.224.0.2';
const _ports = (['tcp', 'udp'] as const).map(
  (protocol) => ({ target: 7000, published: 8080, protocol, mode: 'ingress' }) as const,
);

beforeAll(async () => {
  lab = await NetLab.start(3, { routed: true, mtu: 1400 });
  hosts = [1, 2, 3].map((number) => lab.host(number));
  for (const host of hosts) await host.apply(hosts);
  tasks = await Promise.all(hosts.map((host) => host.attach(2)));
  for (const [index, task] of tasks.entries()) {
    await lab.serve(task.netns, 80, `t${index + 1}`);
    await lab.serveTalk(task.netns, 7000, `t${index + 1}`);
  }
});

afterAll(() => lab?.stop());

describe('hosts on two links', () => {
  it('reach tasks of each other through a tunnel, and those on their own link by a route', async () => {
    const [h1, h2] = hosts as [LabHost, LabHost];
    expect(await h1.run('ip', 'route', 'show', '10.192.2.0/24')).toMatch(/via 10\.192\.2\.0 dev gantry-vx .*onlink/);
    expect(await h1.run('ip', 'route', 'show', '10.192.3.0/24')).toMatch(/via 10\.90\.0\.3 dev eth0/);
    expect(await lab.get(tasks[0]!.netns, '10.192.2.2', 80)).toMatch(/^t2 10\.192\.1\.2:/);
    expect(await lab.get(tasks[1]!.netns, '10.192.1.2', 80)).toMatch(/^t1 10\.192\.2\.2:/);
    expect(await lab.get(h1.netns, '10.192.2.2', 80)).toMatch(/^t2 10\.192\.1\.0:/);
    expect(await lab.get(h2.netns, '10.192.3.2', 80)).toMatch(/^t3 10\.192\.2\.0:/);
  });
});
