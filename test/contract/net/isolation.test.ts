/** Who may reach whom, in packets: networks, services that say who calls them, and what a task may send at all. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Attachment } from '#net/network.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import { backend, endpoint, network } from '#test/support/endpoint.ts';
import { type LabHost, NetLab, worldAddress } from '#test/support/net-lab.ts';

type Task = Attachment & { readonly netns: string };
const [front, back, vault] = [
  network('front', 1),
  network('back', 2),
  network('vault', 3, { internal: true }),
] as const;
const port = (published: number, target: number) => ({ target, published, protocol: 'tcp', mode: 'ingress' }) as const;

let lab: NetLab;
let hosts: LabHost[];
let tasks: Record<'web' | 'api' | 'db' | 'safe' | 'web2' | 'db2', Task>;

const service = (name: string, number: number, networks: readonly string[], over: Partial<Endpoint> = {}) =>
  endpoint(name, {
    vip: `10.224.0.${number}`,
    networks: networks.map((one) => ({ network: one, aliases: [] })),
    backends: Object.entries(tasks)
      .filter(([task]) => task.replace('2', '') === name)
      .map(([, task]) => backend(task.address)),
    ...over,
  });

/** web is on front, db on back, api on both, safe on an internal one alone. */
const services = () => [
  service('web', 2, ['front'], { ports: [port(8080, 80)] }),
  service('api', 3, ['front', 'back']),
  service('db', 4, ['back']),
  service('safe', 5, ['vault']),
];

async function hold(
  endpoints: readonly Endpoint[] = services(),
  networks: readonly ClusterNetwork[] = [front, back, vault],
) {
  for (const host of hosts) {
    const prefix = host.subnet.replace('0/24', '');
    const attachments = Object.values(tasks).filter((task) => task.address.startsWith(prefix));
    await host.apply(hosts, { endpoints, networks, attachments });
  }
}

beforeAll(async () => {
  lab = await NetLab.start(2);
  hosts = [lab.host(1), lab.host(2)];
  for (const host of hosts) await host.apply(hosts, { networks: [front, back, vault] });
  const [h1, h2] = hosts as [LabHost, LabHost];
  const of = (name: string, networks: readonly string[]) => ({ serviceId: endpoint(name).serviceId, networks });
  tasks = {
    web: await h1.attach(2, of('web', ['front'])),
    api: await h1.attach(3, of('api', ['front', 'back'])),
    db: await h1.attach(4, of('db', ['back'])),
    safe: await h1.attach(5, of('safe', ['vault'])),
    web2: await h2.attach(2, of('web', ['front'])),
    db2: await h2.attach(3, of('db', ['back'])),
  };
  for (const [name, task] of Object.entries(tasks)) await lab.serve(task.netns, 80, name);
  await lab.serve(lab.world, 8100, 'world');
  await hold();
});

afterAll(() => lab?.stop());

/** `NAME`, or what became of the connection; `at once` where it was refused within half a second. */
async function reach(from: string, address: string, number = 80): Promise<string> {
  const start = performance.now();
  try {
    return (await lab.get(from, address, number)).split(' ')[0] as string;
  } catch (error) {
    const what = /refused|no route to host/i.test(String(error)) ? 'refused' : 'nothing';
    return performance.now() - start < 500 ? `${what} at once` : what;
  }
}

/** A datagram's fate, in the words of its sender's kernel. */
const sayUdp = (netns: string, address: string) =>
  lab.program(
    netns,
    `const s = require('dgram').createSocket('udp4');
     s.on('error', (e) => { console.log(e.code); process.exit(); });
     s.connect(9, '${address}', () => { s.send('?'); setTimeout(() => s.send('?', () => {}), 50); });
     setTimeout(() => { console.log('silence'); process.exit(); }, 500);`,
  );

describe.each([
  ['with packets of bridges passing nftables', 1],
  ['with bridges left alone', 0],
])('networks, %s', (_how, bridged) => {
  beforeAll(async () => {
    for (const host of hosts) await host.run('sysctl', '-qw', `net.bridge.bridge-nf-call-iptables=${bridged}`);
    await hold();
  });

  it('join who shares one, on one host and across hosts, by address and by VIP', async () => {
    const { web, api, db, web2, db2 } = tasks;
    expect(await reach(web.netns, api.address)).toBe('api');
    expect(await reach(api.netns, db.address)).toBe('db');
    expect(await reach(api.netns, db2.address)).toBe('db2');
    expect(await reach(web2.netns, api.address)).toBe('api');
    expect(await reach(web2.netns, '10.224.0.3')).toBe('api');
    expect(['db', 'db2']).toContain(await reach(api.netns, '10.224.0.4'));
    expect(['web', 'web2']).toContain(await reach(web.netns, '10.224.0.2'));
    expect(db.address).not.toBe(db2.address);
  });

  it('keep apart who shares none, and say so at once', async () => {
    const { web, db, safe, web2, db2 } = tasks;
    for (const [from, to] of [
      [web, db],
      [web, db2],
      [web2, db],
      [db2, web],
      [safe, web],
      [web, safe],
    ] as const) {
      expect(await reach(from.netns, to.address)).toBe('refused at once');
    }
    // On a bridge, the kernel's resets lack the address that was called: there it takes an answer to the second attempt.
    expect(await reach(web.netns, '10.224.0.4')).toBe(bridged ? 'refused' : 'refused at once');
    expect((await sayUdp(web.netns, db.address)).trim()).toBe('EHOSTUNREACH');
  });

  it('lead a task to itself by the VIP of its service', async () => {
    await hold([service('db', 4, ['back'], { backends: [backend(tasks.db.address)] })]);
    expect(await reach(tasks.db.netns, '10.224.0.4')).toBe('db');
    await hold();
  });

  it('do not hold up hosts, nor what is published', async () => {
    const { db, safe, web2 } = tasks;
    for (const host of hosts) expect(await reach(host.netns, db.address)).toBe('db');
    for (const from of [lab.world, db.netns, safe.netns, web2.netns]) {
      for (const host of hosts) expect(['web', 'web2']).toContain(await reach(from, host.address, 8080));
    }
  });
});

describe('an internal network', () => {
  it('has no way out of the cluster, where others have', async () => {
    expect(await reach(tasks.web.netns, worldAddress, 8100)).toBe('world');
    expect(await reach(tasks.safe.netns, worldAddress, 8100)).toBe('refused at once');
  });
});

describe('a service that says who may call it', () => {
  const allowing = (...allowed: string[]) => [
    ...services().filter(({ name }) => name !== 'api'),
    service('api', 3, ['front', 'back'], { allowFrom: { services: allowed } }),
  ];

  it('is called by those alone, though others share a network with it', async () => {
    const { web, web2, db, db2, api } = tasks;
    await hold(allowing('web'));
    for (const from of [web, web2]) {
      expect(await reach(from.netns, api.address)).toBe('api');
      expect(await reach(from.netns, '10.224.0.3')).toBe('api');
    }
    for (const from of [db, db2]) expect(await reach(from.netns, api.address)).toBe('refused at once');
    expect(await reach(api.netns, '10.224.0.3')).toBe('api');
    expect(await reach(api.netns, db2.address)).toBe('db2');
  });

  it('may name a service with its project, or everybody on its networks', async () => {
    const { web, db, api, safe } = tasks;
    await hold(allowing('shop/db'));
    expect(await reach(db.netns, api.address)).toBe('api');
    expect(await reach(web.netns, api.address)).toBe('refused at once');
    await hold(allowing('*'));
    expect(await reach(web.netns, api.address)).toBe('api');
    expect(await reach(safe.netns, api.address)).toBe('refused at once');
    await hold(allowing('other/web'));
    expect(await reach(web.netns, api.address)).toBe('refused at once');
    await hold();
  });
});

describe('a task', () => {
  it('on no network is reached by its published port alone', async () => {
    await hold([
      ...services().filter(({ name }) => name !== 'web'),
      service('web', 2, [], { ports: [port(8080, 80)] }),
    ]);
    expect(await reach(tasks.api.netns, tasks.web.address)).toBe('refused at once');
    expect(['web', 'web2']).toContain(await reach(lab.world, hosts[0]!.address, 8080));
    await hold();
  });

  it('of a control plane that knows of no networks reaches everybody', async () => {
    await hold(services(), []);
    expect(await reach(tasks.web.netns, tasks.db.address)).toBe('db');
    await hold();
    expect(await reach(tasks.web.netns, tasks.db.address)).toBe('refused at once');
  });

  it('sends by its own address alone', async () => {
    const { web, api, db } = tasks;
    await lab.serveUdp(db.netns, 5300, 'db');
    expect(await lab.getUdp(api.netns, db.address, 5300, 40_000)).toBe('db');
    // As one who may reach db, from where no one may.
    await lab.inside(web.netns, 'ip', 'address', 'add', `${api.address}/32`, 'dev', 'lo');
    const before = await received(db);
    const spoof = `const s = require('dgram').createSocket('udp4');
      s.bind(0, '${api.address}', () => { let n = 0; const t = setInterval(() => { s.send('?', 5300, '${db.address}');
        if (++n === 10) { clearInterval(t); setTimeout(() => process.exit(), 100); } }, 10); });`;
    await lab.program(web.netns, spoof);
    expect(await received(db)).toBe(before);
    await lab.inside(web.netns, 'ip', 'address', 'del', `${api.address}/32`, 'dev', 'lo');
  });
});

const received = async (task: Task) =>
  Number((await lab.inside(task.netns, 'nstat', '-az', 'UdpInDatagrams')).match(/UdpInDatagrams\s+(\d+)/)?.[1]);
