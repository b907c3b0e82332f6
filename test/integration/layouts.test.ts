/** Hosts that share no link, one behind NAT, a narrow way between: all join, tell their networks, and have the subnets asked for. */
import { createSocket } from 'node:dgram';
import { realpathSync } from 'node:fs';
import { dirname } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { containsAddress } from '#net/plan/cidr.ts';
import { type Cluster, type NodeRow, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';

let cluster: Cluster;
beforeAll(async () => {
  cluster = await startCluster(4, {
    layout: 'routed',
    mtu: 1_400,
    nat: ['h4'],
    ipv6: true,
    settings: { h1: { GANTRY_SUBNET: '10.192.77.0/25' } },
  });
});
afterAll(() => cluster?.close());

const node = async (name: string) => (await cluster.nodes()).find((one) => one.name === name) as NodeRow;
const run = (host: string, line: string) => cluster.sandbox.run(host, ['sh', '-c', line]);

/** Has the agent of a host start with this subnet, as an operator who edits its settings and starts it anew. */
async function pin(host: string, subnet: string): Promise<void> {
  await cluster.sandbox.up({ hosts: 4, settings: { [host]: { GANTRY_SUBNET: subnet } } });
  // The brackets: so that the shell, which has these very words in its command line, is not meant.
  await run(host, 'kill $(grep -lz -- [-]-control-plane /proc/[0-9]*/cmdline | cut -d/ -f3)');
  await eventually(async () => (await node(host)).pinnedSubnet === subnet);
}

describe('the routed layout', () => {
  test('has its hosts on two links, of which each knows its own', async () => {
    const nodes = await cluster.nodes();
    expect(nodes.map(({ name, state, link, address6 }) => [name, state, link, address6])).toEqual([
      ['h1', 'ready', '10.90.0.1/24', 'fd00:90::1'],
      ['h2', 'ready', '10.90.1.2/24', 'fd00:90:0:1::2'],
      ['h3', 'ready', '10.90.0.3/24', 'fd00:90::3'],
      ['h4', 'ready', '192.168.90.4/24', ''],
    ]);
    expect((await node('h1')).foreignNetworks).toEqual(['10.90.0.0/24', '10.90.1.0/24']);
    expect((await node('h4')).foreignNetworks).toEqual(['192.168.90.0/24']);
  });

  test('lets packets through as wide as asked, and says so to who sends wider', async () => {
    await run('h1', 'ping -c 1 -W 2 -M do -s 1372 10.90.1.2');
    // By the router's word now, or by one that the host remembers.
    await expect(run('h3', 'ping -c 1 -W 2 -M do -s 1373 10.90.1.2')).rejects.toThrow(/mtu ?= ?1400/);
    await run('h2', 'ping -c 1 -W 2 fd00:90::1');
    expect(await cluster.http('http://203.0.113.1/', 'h2')).toBe('10.90.1.2\n');
    expect(await cluster.http('http://[2001:db8:113::1]/', 'h2')).toBe('fd00:90:0:1::2\n');
  });

  test('has a host that dials out from behind NAT, and that nobody can dial', async () => {
    expect(await cluster.http('http://203.0.113.1/', 'h4')).toBe('10.90.0.252\n');
    await expect(run('h1', 'ping -c 1 -W 1 192.168.90.4')).rejects.toThrow();
  });

  test('takes and gives back power and cable of hosts beyond the router', async () => {
    for (const [off, on] of [
      ['kill', 'start'],
      ['cut', 'join'],
      ['crash', 'start'],
    ] as const) {
      await cluster.sandbox.act(off, 'h2');
      await cluster.nodeIs('h2', 'down');
      await cluster.sandbox.act(on, 'h2');
      await cluster.nodeIs('h2', 'ready');
    }
    await run('h2', 'ping -c 1 -W 2 10.90.0.250');
  });

  test('is laid once', async () => {
    await expect(cluster.sandbox.up({ layout: 'flat' })).rejects.toThrow('is there with layout "routed"');
  });
});

describe('subnets', () => {
  const web = (replicas: number) =>
    `name: pins\nservices:\n  web:\n    image: registry:5000/hello:1\n    deploy: {replicas: ${replicas}, placement: {constraints: [node.hostname==h1]}}\n`;

  test('are those asked for, and of the others no two alike', async () => {
    const nodes = await cluster.nodes();
    expect(nodes[0]).toMatchObject({ subnet: '10.192.77.0/25', message: '' });
    expect(new Set(nodes.map(({ subnet }) => subnet)).size).toBe(4);
    await cluster.apply(web(2));
    const tasks = await cluster.settled('pins/web', 2);
    expect(tasks.every(({ address }) => containsAddress('10.192.77.0/25', address))).toBe(true);
    expect(await cluster.http(`http://${tasks[0]!.address}:8080/`, 'h1')).toContain('hello from');
  });

  test('that another node has are refused in words, and kept as they were', async () => {
    const { subnet } = await node('h3');
    await pin('h3', '10.192.77.128/25');
    const why = `subnet 10.192.77.128/25 is asked for, but node h1 has 10.192.77.0/25, of the same /24: it keeps ${subnet}`;
    await eventually(async () => (await node('h3')).message.includes(why));
    expect((await node('h3')).subnet).toBe(subnet);
    expect((await cluster.gantry('nodes')).stdout).toContain(`h3: ${why}`);
    expect((await cluster.gantry('events')).stdout).toContain(why);
  });

  test('change once no task has an address of the old one', async () => {
    await pin('h1', '10.192.78.0/24');
    await eventually(async () => (await node('h1')).message.includes('2 tasks have addresses of 10.192.77.0/25'));
    expect((await node('h1')).subnet).toBe('10.192.77.0/25');
    expect((await cluster.gantry('drain', 'h1')).code).toBe(0);
    await eventually(async () => (await node('h1')).subnet === '10.192.78.0/24');
    expect((await cluster.gantry('activate', 'h1')).code).toBe(0);
    const tasks = await cluster.settled('pins/web', 2);
    expect(tasks.every(({ address }) => containsAddress('10.192.78.0/24', address))).toBe(true);
    for (const { address } of tasks) {
      await eventually(async () => (await cluster.http(`http://${address}:8080/`, 'h1')).includes('hello from'));
      // Another host of the same link knows the new way.
      await eventually(async () => (await cluster.http(`http://${address}:8080/`, 'h3')).includes('hello from'));
    }
    expect((await node('h1')).message).toBe('');
  });

  test('stay what they are when agents start again', async () => {
    const before = (await cluster.nodes()).map(({ name, subnet }) => [name, subnet]);
    for (const host of ['h1', 'h2', 'h4']) await cluster.sandbox.act('crash', host);
    for (const host of ['h1', 'h2', 'h4']) await cluster.sandbox.act('start', host);
    expect((await cluster.nodes()).map(({ name, subnet }) => [name, subnet])).toEqual(before);
  });

  test('a network that a host turns out to have is told of while its agent runs', async () => {
    const { subnet } = await node('h1');
    await run('h3', `ip route add ${subnet.replace('.0/24', '.64/26')} via 10.90.0.254`);
    await eventually(async () => (await node('h3')).message.includes(`meets ${subnet}, the subnet of node h1`));
    await run('h3', `ip route del ${subnet.replace('.0/24', '.64/26')}`);
    await eventually(async () => !(await node('h3')).message.includes('meets'));
  });
});

test('settings of the cluster are shown, set, refused where somebody has something of them, and told as events', async () => {
  const shown = await cluster.json<Record<string, string>>('cluster', 'show');
  expect(shown.network6).toMatch(/^fd[0-9a-f:]+::\/96$/);
  expect(shown).toMatchObject({ encapsulation: 'auto', encryption: '', domain: 'gantry.internal' });
  const set = await cluster.gantry('cluster', 'set', 'encapsulation=always');
  expect([set.code, set.stdout]).toEqual([0, expect.stringMatching(/^encapsulation +always/m)]);
  const refused = await cluster.gantry('cluster', 'set', 'encapsulation=auto', 'network=10.64.0.0/12');
  expect(refused.stderr).toMatch(
    /network cannot become 10\.64\.0\.0\/12: h1, h2, h3 and 1 more have their subnets of it/,
  );
  expect(refused.code).toBe(1);
  expect((await cluster.gantry('cluster', 'set', 'encapsulation=sometimes')).code).toBe(2);
  expect((await cluster.gantry('cluster', 'set', 'encapsulation=auto')).code).toBe(0);
  const events = (await cluster.gantry('events')).stdout;
  expect(events).toContain('encapsulation always, was auto');
  expect(events).not.toContain('10.64.0.0');
});

test('a published UDP port is answered on 127.0.0.1 of the machine, to each client its own answers', async () => {
  const node = realpathSync(process.execPath);
  const program = `require("dgram").createSocket("udp4").on("message",function(m,r){this.send("echo "+m,r.port,r.address)}).bind(5300)`;
  await cluster.apply(`name: udp
services:
  echo:
    image: registry:5000/hello:1
    entrypoint: ['${node}', '-e', '${program}']
    volumes: ['/usr:/usr:ro', '/lib:/lib:ro', '/lib64:/lib64:ro', '${dirname(node)}:${dirname(node)}:ro']
    ports: ['35300:5300/udp']
    deploy: {placement: {constraints: [node.hostname==h1]}}
`);
  await cluster.settled('udp/echo', 1);
  await eventually(async () => (await cluster.sandbox.status()).ports.some(({ port }) => port === 35_300));
  expect((await cluster.sandbox.status()).ports).toContainEqual({ port: 35_300, protocol: 'udp' });
  const clients = ['a', 'b', 'c'].map((name) => {
    const socket = createSocket('udp4');
    const heard: string[] = [];
    socket.on('message', (datagram) => heard.push(datagram.toString()));
    return { name, socket, heard };
  });
  try {
    for (const { name, socket, heard } of clients) {
      await eventually(
        () => {
          socket.send(name, 35_300, '127.0.0.1');
          return heard.length > 0;
        },
        { everyMs: 100 },
      );
    }
    for (const { name, heard } of clients) expect(new Set(heard)).toEqual(new Set([`echo ${name}`]));
  } finally {
    for (const { socket } of clients) socket.close();
  }
});
