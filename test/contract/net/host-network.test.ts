/** The network of real kernels: hosts that are namespaces joined by a switch, and packets that really pass. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { backend, endpoint, network } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab, worldAddress } from '#test/support/net-lab.ts';

let lab: NetLab;
let h1: LabHost;
let h2: LabHost;
let hosts: LabHost[];
let a: Awaited<ReturnType<LabHost['attach']>>;
let b: typeof a;
let c: typeof a;
const vip = '10.224.0.2';
const networks = [network('shop', 1)];
const onShop = { networks: [{ network: 'shop', aliases: [] }] };
const port = (published: number, target: number) => ({ target, published, protocol: 'tcp', mode: 'ingress' }) as const;

beforeAll(async () => {
  lab = await NetLab.start(2);
  h1 = lab.host(1);
  h2 = lab.host(2);
  hosts = [h1, h2];
  for (const host of hosts) await host.apply(hosts, { networks });
  a = await h1.attach(2, { networks: ['shop'] });
  b = await h1.attach(3, { networks: ['shop'] });
  c = await h2.attach(2, { networks: ['shop'] });
  await lab.serve(a.netns, 80, 'a');
  await lab.serve(b.netns, 80, 'b');
  await lab.serve(c.netns, 80, 'c');
  await serviceOf([a.address, b.address, c.address]);
});

afterAll(() => lab?.stop());

/** All hosts hold this one service of the given addresses. */
async function serviceOf(addresses: readonly string[], over = {}) {
  const web = endpoint('web', { vip, backends: addresses.map((address) => backend(address)), ...onShop, ...over });
  const attachments = [a, b, c];
  for (const host of hosts) {
    const own = attachments.filter((task) => task.address.startsWith(host.subnet.replace('0/24', '')));
    await host.apply(hosts, { endpoints: [web], networks, attachments: own });
  }
}

describe('tasks reach each other', () => {
  it('on one host, with their own addresses', async () => {
    expect(await lab.get(a.netns, b.address, 80)).toMatch(new RegExp(`^b ${a.address}:`));
  });

  it('across hosts by route, with their own addresses', async () => {
    expect(await lab.get(a.netns, c.address, 80)).toMatch(new RegExp(`^c ${a.address}:`));
  });

  it('and the outside, masqueraded as their host', async () => {
    await lab.serve(lab.world, 8100, 'world');
    expect(await lab.get(a.netns, worldAddress, 8100)).toMatch(/^world 10\.90\.0\.1:/);
  });

  it('but are not reached from outside by their own addresses', async () => {
    await lab.outside('ip', 'route', 'replace', '10.192.1.0/24', 'via', h1.address);
    await expect(lab.get(lab.world, a.address, 80)).rejects.toThrow();
    expect(await lab.get(h2.netns, a.address, 80)).toMatch(/^a 10\.90\.0\.2:/);
  });
});

describe.each([
  ['with packets of bridges passing nftables', 1],
  ['with bridges left alone', 0],
])('a VIP, %s', (_what, bridged) => {
  beforeAll(async () => {
    for (const host of hosts) await host.run('sysctl', '-qw', `net.bridge.bridge-nf-call-iptables=${bridged}`);
  });

  it('spreads connections over all serving backends, from a task with its own address', async () => {
    await serviceOf([a.address, b.address, c.address]);
    const counts = await lab.spread(c.netns, vip, 80, 90);
    expect([...counts.keys()].sort()).toEqual(['a', 'b', 'c']);
    for (const count of counts.values()) expect(count).toBeGreaterThan(10);
  });

  it('is reached from the host itself, too', async () => {
    await serviceOf([c.address]);
    expect(await lab.get(h1.netns, vip, 80)).toMatch(/^c /);
  });

  it('shows the backend the address of the task that asks, on the same host or another', async () => {
    await serviceOf([a.address]);
    expect(await lab.get(b.netns, vip, 80)).toMatch(new RegExp(`^a ${b.address}:`));
    expect(await lab.get(c.netns, vip, 80)).toMatch(new RegExp(`^a ${c.address}:`));
  });

  it('leads a task to itself', async () => {
    await serviceOf([a.address]);
    expect(await lab.get(a.netns, vip, 80)).toMatch(/^a /);
  });

  it('leads nobody to a backend that was removed, once apply has resolved', async () => {
    await serviceOf([a.address, b.address, c.address]);
    await serviceOf([b.address]);
    expect(await lab.spread(c.netns, vip, 80, 30)).toEqual(new Map([['b', 30]]));
  });

  it('without a backend refuses at once, for tasks and for the host', async () => {
    await serviceOf([]);
    for (const netns of [a.netns, h1.netns]) await expect(lab.get(netns, vip, 80)).rejects.toThrow(/refused/);
  });
});

describe('a flow of datagrams', () => {
  it('F27: follows its service to another backend, from the same port and at once', async () => {
    await lab.serveUdp(a.netns, 5300, 'a');
    await lab.serveUdp(b.netns, 5300, 'b');
    await serviceOf([a.address]);
    expect(await lab.getUdp(c.netns, vip, 5300, 40_000)).toBe('a');
    await serviceOf([b.address]);
    await eventually(async () => (await lab.getUdp(c.netns, vip, 5300, 40_000)) === 'b');
  });
});

describe('a published port', () => {
  it('answers on every node, also one without a task', async () => {
    await serviceOf([a.address], { ports: [port(8080, 80)] });
    expect(await lab.get(lab.world, h1.address, 8080)).toMatch(/^a 10\.90\.0\.254:/);
    expect(await lab.get(lab.world, h2.address, 8080)).toMatch(/^a /);
  });

  it('answers the node itself, its tasks, and the tasks behind it', async () => {
    await serviceOf([c.address], { ports: [port(8080, 80)] });
    for (const netns of [h1.netns, a.netns, c.netns]) {
      expect(await lab.get(netns, h1.address, 8080)).toMatch(/^c /);
      expect(await lab.get(netns, h2.address, 8080)).toMatch(/^c /);
    }
  });

  it('without a backend refuses at once', async () => {
    await serviceOf([], { ports: [port(8080, 80)] });
    await expect(lab.get(lab.world, h1.address, 8080)).rejects.toThrow(/refused/);
  });

  it('in host mode answers on the node of its task alone', async () => {
    const hostPort = { ...port(9090, 80), mode: 'host' as const };
    await h1.apply(hosts, { networks, attachments: [{ ...a, hostPorts: [hostPort] }] });
    await h2.apply(hosts, { networks });
    expect(await lab.get(lab.world, h1.address, 9090)).toMatch(/^a 10\.90\.0\.254:/);
    await expect(lab.get(lab.world, h2.address, 9090)).rejects.toThrow(/refused/);
  });

  it('in host mode is that of the task that the revision names, while one that has ended is not gone yet', async () => {
    const hostPorts = [{ ...port(9091, 80), mode: 'host' as const }];
    const fields = { networks: ['shop'], hostPorts };
    const both = [await h1.attach(21, fields), await h1.attach(22, fields)];
    // Of two that the revision names the first has it, by name.
    const [ended, next] = both.sort((x, y) => (x.taskId < y.taskId ? -1 : 1)) as [typeof a, typeof a];
    await lab.serve(next.netns, 80, 'next');
    await h1.apply(hosts, { networks, attachments: [a, b, next] });
    expect(await lab.get(lab.world, h1.address, 9091)).toMatch(/^next /);
    for (const { taskId } of [ended, next]) await h1.call('detach', taskId);
  });
});

describe('names', () => {
  it('are answered on the gateway to tasks', async () => {
    await serviceOf([a.address, c.address]);
    const nslookup = (name: string) => lab.inside(a.netns, 'busybox', 'nslookup', '-type=a', name, '10.192.1.1');
    expect(await nslookup('web.shop.gantry.internal')).toContain(vip);
    const all = await nslookup('tasks.web');
    expect(all).toContain(a.address);
    expect(all).toContain(c.address);
  });
});

describe('repair', () => {
  const repaired = (host: LabHost, damage: string[], message: RegExp) =>
    host.repaired(() => host.run(...damage), message);

  it.each([
    ['a route', ['ip', 'route', 'del', '10.192.2.0/24'], /route 10\.192\.2\.0\/24 via 10\.90\.0\.2 was missing/],
    ['the table', ['nft', 'delete', 'table', 'ip', 'gantry'], /table ip gantry was missing/],
    ['a chain', ['nft', 'flush', 'chain', 'ip', 'gantry', 'postrouting'], /postrouting of table ip gantry was changed/],
    ['elements', ['nft', 'flush', 'map', 'ip', 'gantry', 'services'], /1 elements were missing/],
    ['the bridge address', ['ip', 'address', 'flush', 'dev', 'gantry0'], /address 10\.192\.1\.1\/24 .* was missing/],
    ['the bridge', ['ip', 'link', 'del', 'gantry0'], /the bridge was missing/],
    ['forwarding', ['sysctl', '-qw', 'net.ipv4.ip_forward=0'], /net\.ipv4\.ip_forward was 0/],
  ])('puts back %s', async (_what, damage, message) => {
    await serviceOf([c.address]);
    await repaired(h1, damage, message);
    await eventually(async () => (await lab.get(a.netns, vip, 80)).startsWith('c '));
    expect(await lab.inside(a.netns, 'busybox', 'nslookup', '-type=a', 'web.shop', '10.192.1.1')).toContain(vip);
  });

  it('does what it can when a peer is not on the link and may not be encapsulated, says so, and does the rest once it is', async () => {
    const far = { ...h2, address: '10.91.0.9', subnet: '10.192.9.0/24' } as LabHost;
    const web = endpoint('web', { vip, backends: [backend(c.address)], ...onShop });
    const wanted = { endpoints: [web], networks, attachments: [a, b], encapsulation: 'never' as const };
    await expect(h1.apply([h1, h2, far], wanted)).rejects.toMatchObject({
      message: expect.stringMatching(/10\.192\.9\.0\/24 via 10\.91\.0\.9: ENETUNREACH/),
      code: 'unavailable',
    });
    expect(await lab.get(a.netns, vip, 80)).toMatch(/^c /);
    await h1.run('ip', 'address', 'add', '10.91.0.1/24', 'dev', 'eth0');
    await eventually(async () => (await h1.run('ip', 'route', 'show', '10.192.9.0/24')).includes('via 10.91.0.9'));
    await h1.run('ip', 'address', 'del', '10.91.0.1/24', 'dev', 'eth0');
    await h1.apply(hosts, { networks, attachments: [a, b] });
  });

  it('gives a task whose link was deleted a new one', async () => {
    await serviceOf([c.address]);
    await repaired(h1, ['ip', 'link', 'del', `gt${b.taskId.slice(0, 13)}`], /link gt.* was missing/);
    expect(await lab.get(b.netns, c.address, 80)).toMatch(/^c /);
  });

  it('leaves foreign tables, routes and links alone', async () => {
    const foreign =
      'table ip other { chain forward { type filter hook forward priority 10; ip daddr 203.0.113.9 drop; }; }';
    await h1.run('nft', foreign);
    await h1.run('ip', 'link', 'add', 'other0', 'type', 'bridge');
    await h1.run('ip', 'route', 'add', '203.0.113.0/24', 'via', '10.90.0.254');
    await repaired(h1, ['nft', 'delete', 'table', 'ip', 'gantry'], /table ip gantry was missing/);
    expect(await h1.run('nft', 'list', 'table', 'ip', 'other')).toContain('203.0.113.9 drop');
    expect(await h1.run('ip', 'link', 'show', 'other0')).toContain('other0');
    expect(await h1.run('ip', 'route', 'show', '203.0.113.0/24')).toContain('10.90.0.254');
  });
});

describe('a host that drops what it forwards', () => {
  const reached = () => lab.get(a.netns, c.address, 80).catch(() => 'nothing');
  const said = () => h1.log.split('drops what is forwarded by default').length - 1;

  it('is left as it is, and said once, with a remedy that works', async () => {
    await serviceOf([c.address]);
    expect(await reached()).toMatch(/^c /);
    await h1.run('nft', 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }');
    await eventually(() => said() === 1);
    expect(await reached()).toBe('nothing');
    expect(h1.log).toContain('iptables -I FORWARD -s 10.192.0.0/11 -j ACCEPT && iptables -I FORWARD -d 10.192.0.0/11');
    // What the remedy does, by nft: this machine need not have iptables.
    for (const end of ['saddr', 'daddr']) {
      await h1.run('nft', 'insert', 'rule', 'ip', 'filter', 'FORWARD', 'ip', end, '10.192.0.0/11', 'accept');
    }
    expect(await reached()).toMatch(/^c /);
    await h1.run('nft', 'delete', 'table', 'ip', 'gantry');
    await eventually(async () => (await h1.run('nft', 'list', 'tables')).includes('table ip gantry'));
    expect(said()).toBe(1);
    expect(await h1.run('nft', 'list', 'chain', 'ip', 'filter', 'FORWARD')).toContain('policy drop');
    await h1.run('nft', 'delete', 'table', 'ip', 'filter');
  });

  it('says that strict reverse path filtering is in the way where clients are on another link', async () => {
    await h1.run('ip', 'link', 'add', 'public0', 'type', 'bridge');
    await h1.run('ip', 'link', 'set', 'public0', 'up');
    await h1.run('ip', 'route', 'replace', 'default', 'dev', 'public0');
    await h1.run('sysctl', '-qw', 'net.ipv4.conf.eth0.rp_filter=1');
    await h1.run('nft', 'delete', 'table', 'ip', 'gantry');
    await eventually(() => h1.log.includes('sysctl -w net.ipv4.conf.eth0.rp_filter=2'));
    await h1.run('sysctl', '-qw', 'net.ipv4.conf.eth0.rp_filter=0');
    await h1.run('ip', 'link', 'del', 'public0');
    await h1.run('ip', 'route', 'add', 'default', 'via', '10.90.0.254');
  });
});

describe('a task that leaves', () => {
  it('F27: leaves no link, namespace or connection behind', async () => {
    const d = await h1.attach(9, { networks: ['shop'] });
    await serviceOf([d.address]);
    const stop = await lab.serve(d.netns, 80, 'd');
    expect(await lab.get(a.netns, vip, 80)).toMatch(/^d /);
    const entries = () => h1.run('cat', '/proc/net/nf_conntrack');
    expect(await entries()).toContain(`src=${d.address}`);
    stop();
    await h1.call('detach', d.taskId);
    expect(await h1.call('attached')).not.toContain(d.taskId);
    await eventually(async () => !(await h1.run('ip', '-br', 'link')).includes(d.taskId.slice(0, 13)));
    expect(await entries()).not.toContain(d.address);
    await h1.call('detach', d.taskId);
  });
});

describe('an address that another task has now', () => {
  it('F26: leads to that one at once, from its own host and from another that knew the first', async () => {
    const first = await h1.attach(20, { networks: ['shop'] });
    await serviceOf([first.address]);
    await lab.serve(first.netns, 80, 'first');
    for (const from of [a, c]) expect(await lab.get(from.netns, first.address, 80)).toMatch(/^first /);
    await h1.call('detach', first.taskId);
    const next = await h1.attach(20, { networks: ['shop'] });
    expect(next.address).toBe(first.address);
    await serviceOf([next.address]);
    await lab.serve(next.netns, 80, 'next');
    for (const from of [a, c]) {
      expect(await lab.get(from.netns, next.address, 80)).toMatch(/^next /);
      expect(await lab.get(from.netns, vip, 80)).toMatch(/^next /);
    }
    await h1.call('detach', next.taskId);
  });
});

describe('many tasks at once', () => {
  it('F31: come and go, and leave no namespace and no link', async () => {
    /** Namespaces and links of tasks. */
    const held = async () => {
      const counts = await h1.run('sh', '-c', `ls ${h1.runDir}/netns | wc -l; ip -o link | grep -c ': gt' || true`);
      return counts.trim().split('\n').map(Number);
    };
    const isBack = () => eventually(async () => String(await held()) === '2,2');
    await isBack();
    const bytes = Array.from({ length: 60 }, (_, index) => 30 + index);
    const tasks = await Promise.all(bytes.map((byte) => h1.attach(byte, { networks: ['shop'] })));
    expect(new Set(tasks.map(({ address }) => address)).size).toBe(60);
    expect(await held()).toEqual([62, 62]);
    await Promise.all(tasks.map(({ taskId }) => h1.call('detach', taskId)));
    await isBack();
    expect(await h1.call('attached')).toHaveLength(2);
  });
});

describe('a change of one backend', () => {
  it('costs about the same with ten thousand services as with ten', async () => {
    const median = async (services: number) => {
      const made = (number: number, last: number) =>
        endpoint(`s${number}`, {
          ...onShop,
          vip: `10.225.${number >> 8}.${number & 255}`,
          backends: [2, 3, last].map((byte) => backend(`10.192.2.${byte}`)),
        });
      const endpoints = Array.from({ length: services }, (_, number) => made(number, 4));
      const changes = Array.from({ length: 100 }, (_, round) => made((round * 7) % services, 5 + (round % 200)));
      const wanted = h1.wanted(hosts, { endpoints, networks, attachments: [a, b] });
      const costs = await h1.call<number[]>('costOfChanges', { wanted, endpoints: changes });
      return costs.sort((x, y) => x - y)[50] as number;
    };
    const few = await median(10);
    const many = await median(10_000);
    // A chain for each service costs a hundred times as much; what else this machine does, up to twice.
    expect(many).toBeLessThan(5 * few + 2_000);
    await h1.apply(hosts, { networks, attachments: [a, b] });
  });
});

describe('a restart of the agent', () => {
  it('adopts what is there: nothing is rewritten, namespaces are kept, packets flow throughout', async () => {
    await serviceOf([a.address, c.address]);
    const handle = async () => /handle (\d+)/.exec(await h1.run('nft', '-a', 'list', 'table', 'ip', 'gantry'))?.[1];
    const generation = await handle();
    const links = await h1.run('ip', '-br', 'link');
    await h1.killAgent();
    expect(await lab.get(b.netns, vip, 80)).toMatch(/^[ac] /);
    h1.startAgent();
    expect([...(await h1.call<string[]>('attached'))].sort()).toEqual([a.taskId, b.taskId].sort());
    await serviceOf([a.address, c.address]);
    expect(await handle()).toBe(generation);
    expect(await h1.run('ip', '-br', 'link')).toBe(links);
    const { netnsPath } = await h1.call<{ netnsPath: string }>('attach', { ...a, netns: undefined });
    expect(netnsPath).toBe(a.netns);
    expect(await lab.get(b.netns, vip, 80)).toMatch(/^[ac] /);
  });
});
