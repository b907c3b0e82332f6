/** Not only primary addresses go by the ways between nodes: IPv6 does, on links and through tunnels, and addresses of networks' own subnets. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Attachment } from '#net/network.ts';
import { embed6 } from '#net/plan/cidr6.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import { backend, endpoint, network, peer } from '#test/support/endpoint.ts';
import { eventually } from '#test/support/eventually.ts';
import { type LabHost, NetLab } from '#test/support/net-lab.ts';

type Task = Attachment & { readonly netns: string };
const network6 = 'fd47::/96';
const six = (address: string) => embed6(network6, address);
const subnet = { subnet: '172.28.0.0/16', gateway: '', ipRange: '', reserved: [] };
const dual = network('dual', 1, { ipv6: true, subnets: [subnet] });

let lab: NetLab;
let hosts: LabHost[];
let keys: string[];
let tasks: Task[] = [];

beforeAll(async () => {
  lab = await NetLab.start(3, { routed: true });
  hosts = [1, 2, 3].map((number) => lab.host(number));
  keys = await Promise.all(hosts.map((host) => host.call<string>('wireguardKey')));
  await hold();
  tasks = await Promise.all(
    hosts.map((host, index) =>
      host.attach(2, { networks: ['dual'], addresses: [{ network: 'dual', address: `172.28.0.${index + 1}` }] }),
    ),
  );
  await hold();
  for (const [index, task] of tasks.entries()) {
    const program = `require('net').createServer((s) => { s.on('error', () => {});
      s.end('t${index + 1} ' + s.remoteAddress + '\\n'); }).listen(80, '::')`;
    lab.background(task.netns, program);
    await eventually(async () => (await lab.inside(task.netns, 'ss', '-Hltn')).includes(':80 '));
  }
});

afterAll(() => lab?.stop());

interface Over extends Partial<Pick<ClusterConfig, 'encapsulation' | 'encryption'>> {
  readonly networks?: readonly ClusterNetwork[];
  /** Hosts that say no IPv6 address. */
  readonly without6?: readonly LabHost[];
  readonly serving?: readonly Task[];
}

async function hold({ without6 = [], serving = tasks, ...over }: Over = {}) {
  const address6 = (host: LabHost) => (without6.includes(host) ? '' : host.address6);
  const peers = hosts.map((host, index) =>
    peer(host.name, host.address, host.subnet, {
      nodeId: host.nodeId,
      address6: address6(host),
      wireguardKey: keys[index] ?? '',
    }),
  );
  const backends = serving.map((task) => {
    const host = hosts.find((one) => task.address.startsWith(one.subnet.replace('0/24', '')));
    return backend(task.address, { addresses: task.addresses, ...(host && { nodeId: host.nodeId }) });
  });
  const web = endpoint('web', { networks: [{ network: 'dual', aliases: [] }], ipv6: true, backends });
  await Promise.all(
    hosts.map((host, index) => {
      const attachments = tasks.slice(index, index + 1);
      const own = { address6: address6(host), peers, endpoints: [web], networks: [dual], network6, attachments };
      return host.apply(hosts, { ...own, ...over });
    }),
  );
}

const get = async (netns: string, address: string) =>
  (
    await lab.program(
      netns,
      `const s = require('net').connect(80, '${address}');
       s.on('error', (e) => { console.log(e.code); process.exit(); });
       s.on('data', (d) => { process.stdout.write(d); process.exit(); });
       setTimeout(() => { console.log('nothing'); process.exit(); }, 2000);`,
    )
  ).trim();
const [t1, t2, t3] = [0, 1, 2].map((index) => () => tasks[index] as Task) as [() => Task, () => Task, () => Task];
const all6 = async () => {
  for (const [from, to] of [
    [t1, t2],
    [t2, t1],
    [t1, t3],
    [t3, t2],
  ] as const) {
    const [asks, answers] = [from(), to()];
    const name = `t${tasks.indexOf(answers) + 1}`;
    await eventually(async () => (await get(asks.netns, six(answers.address))) === `${name} ${six(asks.address)}`);
  }
};

describe('IPv6 between tasks', () => {
  it('goes by route on one link, and through the tunnel between two', async () => {
    await all6();
    const routes = await (hosts[0] as LabHost).run('ip', '-6', 'route', 'show', 'proto', '71');
    expect(routes).toMatch(/fd47::ac0:200\/120 via fd47::ac0:200 dev gantry-vx .*mtu 1450/);
    expect(routes).toMatch(/fd47::ac0:300\/120 via fd00:90::3 dev eth0/);
  });

  it('takes the tunnel on one link, too, where a host has no address of its own', async () => {
    await hold({ without6: [hosts[2] as LabHost] });
    await all6();
    const h1 = hosts[0] as LabHost;
    expect(await h1.run('ip', '-6', 'route', 'show', 'fd47::ac0:300/120')).toContain('dev gantry-vx');
    expect(await h1.run('ip', 'route', 'show', '10.192.3.0/24')).toContain('dev eth0');
  });

  it('is encapsulated and encrypted as the cluster says', async () => {
    await hold({ encapsulation: 'always' });
    await all6();
    await hold({ encryption: 'wireguard' });
    await all6();
    await hold();
    await all6();
  });

  it.each([
    ['a neighbour', 'ip -6 neigh del fd47::ac0:200 dev gantry-vx', /neighbour fd47::ac0:200 .* was missing/],
    ['a route', 'ip -6 route del fd47::ac0:200/120', /route fd47::ac0:200\/120 .* was missing/],
    ['the device', 'ip link del gantry-vx', /the tunnel gantry-vx was missing/],
    ['its addresses', 'ip -6 address flush dev gantry-vx', /address fd47::ac0:100\/128 of the tunnel was missing/],
  ])('is put right when %s goes', async (_what, damage, message) => {
    const h1 = hosts[0] as LabHost;
    await h1.repaired(() => h1.run(...damage.split(' ')), message);
    await all6();
  });
});

describe("an address of a network's own subnet", () => {
  it('is reached by the way to its node, from the address of the same network', async () => {
    expect(await get(t1().netns, '172.28.0.2')).toMatch(/^t2 (::ffff:)?172\.28\.0\.1$/);
    expect(await get(t2().netns, '172.28.0.1')).toMatch(/^t1 (::ffff:)?172\.28\.0\.2$/);
    expect(await get(t1().netns, '172.28.0.3')).toMatch(/^t3 (::ffff:)?172\.28\.0\.1$/);
    const routes = await (hosts[0] as LabHost).run('ip', 'route', 'show', 'proto', '71');
    expect(routes).toMatch(/172\.28\.0\.2 via 10\.192\.2\.0 dev gantry-vx .*onlink/);
    expect(routes).toMatch(/172\.28\.0\.3 via 10\.90\.0\.3 dev eth0/);
    expect(routes).toMatch(/unreachable 172\.28\.0\.0\/16/);
  });

  it('has no way once its task is gone, nor the subnet once the network is', async () => {
    await hold({ serving: [t1(), t3()] });
    const routes = () => (hosts[0] as LabHost).run('ip', 'route', 'show', 'proto', '71');
    expect(await routes()).not.toContain('172.28.0.2');
    expect(await routes()).toContain('172.28.0.3');
    await hold({ networks: [] });
    expect(await routes()).not.toContain('172.28');
    await hold();
    expect(await routes()).toContain('172.28.0.2');
  });
});
