/** Names across hosts, and what a container sees of the network: its files, its links, whose namespace it has. */
import { type ChildProcess, spawn } from 'node:child_process';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { outside } from '#node-agent/sandbox/topology.ts';
import { type Cluster, startCluster } from '#test/support/cluster.ts';
import { eventually } from '#test/support/eventually.ts';
import { endsWithTest } from '#test/support/process.ts';

let cluster: Cluster;
let resolver: ChildProcess;
/** What the name server of the world says of every name. */
const inWorld = '198.51.100.77';

const compose = `
name: disc
services:
  web:
    image: registry:5000/hello:1
    networks: { front: { aliases: [www] }, back: {} }
    links: ["db:database"]
    extra_hosts: ["gate:host-gateway"]
    dns: ["${outside.address}"]
    dns_search: ["corp.example"]
    deploy: { placement: { constraints: ["node.hostname == h2"] } }
    stop_grace_period: 1s
  db:
    image: registry:5000/hello:1
    environment: { ROLE: store }
    networks: { back: { aliases: [store] } }
    deploy: { replicas: 2, endpoint_mode: dnsrr, placement: { constraints: ["node.hostname == h1"] } }
    stop_grace_period: 1s
  cache:
    image: registry:5000/hello:1
    expose: ["11211"]
    networks: { back: {}, six: {} }
    deploy: { placement: { constraints: ["node.hostname == h1"] } }
    stop_grace_period: 1s
  user:
    image: registry:5000/hello:1
    networks: { back: {}, six: {} }
    links: ["cache:linked"]
    deploy: { placement: { constraints: ["node.hostname == h2"] } }
    stop_grace_period: 1s
  lone:
    image: registry:5000/hello:1
    networks: { front: {} }
    stop_grace_period: 1s
  shut:
    image: registry:5000/hello:1
    networks: { vault: {} }
    dns: ["${outside.address}"]
    stop_grace_period: 1s
  hosted:
    image: registry:5000/hello:1
    network_mode: host
    command: [sh, -c, "nc -ll -p 8099 -e /bin/responder"]
    entrypoint: []
    healthcheck: { test: [CMD, wget, -q, -O, /dev/null, "http://127.0.0.1:8099/"], interval: 1s, start_interval: 100ms, start_period: 5s }
    deploy: { placement: { constraints: ["node.hostname == h1"] } }
    stop_grace_period: 1s
  alone:
    image: registry:5000/hello:1
    network_mode: none
    stop_grace_period: 1s
  beside:
    image: registry:5000/hello:1
    network_mode: service:web
    entrypoint: [sleep, "1000000"]
    stop_grace_period: 1s
networks:
  front: {}
  back: {}
  vault: { internal: true }
  six: { enable_ipv6: true }
`;

beforeAll(async () => {
  cluster = await startCluster(2);
  const script = join(import.meta.dirname, '../support/resolver-process.ts');
  const line = cluster.sandbox.execLine('world', [process.execPath, script, outside.address, inWorld]);
  resolver = spawn('setpriv', [...endsWithTest, ...line], { stdio: ['ignore', 'pipe', 'inherit'] });
  await new Promise((resolve) => resolver.stdout?.once('data', resolve));
  await cluster.apply(compose);
});
afterAll(async () => {
  resolver?.kill();
  await cluster?.close();
});

/** Runs a line of shell in the one task of a service; its output, also of what fails. */
async function sh(service: string, line: string): Promise<string> {
  const { stdout, stderr } = await cluster.gantry('exec', service, 'sh', '-c', `${line} 2>&1`);
  return stdout + stderr;
}
/** The IPv4 addresses that a name has for a service. */
async function look(service: string, name: string): Promise<string[]> {
  const text = await sh(service, `busybox nslookup ${name}`);
  const [, ...answers] = text.split(/\n\s*\n/);
  const found = [...answers.join('\n').matchAll(/^Address(?: \d+)?:\s+([\d.]+)$/gm)].map((match) => match[1]!);
  // It asks for the name in every search domain, and the world has all names in its own.
  return [...new Set(found)].filter((address) => address !== inWorld || name === 'example.test').sort();
}
const addressOf = async (service: string) => (await cluster.settled(service, 1))[0]!.address;

describe('names', () => {
  test('lead to services that share a network, also on other hosts, and to no others', async () => {
    const dbs = (await cluster.settled('db', 2)).map(({ address }) => address).sort();
    expect(await look('web', 'db')).toEqual(dbs);
    expect(await look('web', 'store')).toEqual(dbs);
    expect(await look('web', 'tasks.db.disc.gantry.internal')).toEqual(dbs);
    expect(await look('web', 'database')).toEqual(dbs);
    expect(await look('user', 'database')).toEqual([]);
    expect(await look('lone', 'db')).toEqual([]);
    expect(await look('lone', 'tasks.www')).toEqual([await addressOf('web')]);
    expect(await look('user', 'www')).toEqual([]);
    expect(await sh('web', 'busybox nslookup 1.db')).toContain(dbs[0]);
  });

  test('have IPv6 addresses on the networks that have, asked by either', async () => {
    const [user] = await cluster.settled('user', 1);
    const own6 = (await sh('user', 'cat /etc/hosts')).match(/^(fd\S+)\t/m)?.[1] ?? '';
    expect(await sh('user', 'ip -6 -o addr show eth0')).toContain(own6);
    const aaaa = await sh('user', 'busybox nslookup -type=aaaa cache');
    const found = /^Address(?: \d+)?:\s+(fd\S+)$/m.exec(aaaa)?.[1] ?? '';
    expect(found).toMatch(/^fd/);
    expect(await sh('web', 'busybox nslookup -type=aaaa cache.disc.gantry.internal')).not.toMatch(/^Address.*fd/m);
    const gateway6 = (await cluster.sandbox.run(user!.node, ['ip', '-6', '-o', 'addr', 'show', 'gantry0'])).match(
      /inet6 (fd[0-9a-f:]+)/,
    )?.[1];
    expect(await sh('user', `busybox nslookup cache ${gateway6}`)).toContain(found);
  });

  test('are found for addresses', async () => {
    const address = await addressOf('cache');
    expect(await sh('web', `busybox nslookup ${address}`)).toContain('1.cache.disc.gantry.internal');
    expect(await sh('lone', `busybox nslookup ${address}`)).not.toContain('cache');
  });

  test('of the world are asked of the name servers of the service, but by who has no way out', async () => {
    expect(await look('web', 'example.test')).toEqual([inWorld]);
    expect(await sh('shut', 'busybox nslookup example.test')).toContain('NXDOMAIN');
    expect(await look('web', 'tasks.cache')).toEqual([await addressOf('cache')]);
  });

  test('follow their tasks, and are answered to who asks while the agent is killed', async () => {
    const { stdout } = await cluster.gantry('scale', 'cache=2');
    expect(stdout).toBeDefined();
    const two = (await cluster.settled('cache', 2)).map(({ address }) => address).sort();
    await eventually(async () => (await look('user', 'tasks.cache')).join() === two.join());
    const [user] = await cluster.settled('user', 1);
    const gateway = user!.address.replace(/\d+$/, '1');
    const ask = `nsenter -t ${user!.pid} -n busybox nslookup tasks.cache ${gateway}`;
    // The brackets: so that the shell, which has these very words in its command line, is not meant.
    const kill = 'kill -9 $(grep -lz -- [-]-control-plane /proc/[0-9]*/cmdline | cut -d/ -f3)';
    // Asked once, while there is no agent.
    expect(await cluster.sandbox.run('h2', ['sh', '-c', `${kill}; ${ask}`])).toContain(two[1]);
    await cluster.gantry('scale', 'cache=1');
    await cluster.settled('cache', 1);
  });
});

describe('a container', () => {
  test('knows itself, its links and its extra hosts by its files', async () => {
    const [web] = await cluster.settled('web', 1);
    const files = await sh('web', 'hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf');
    const gateway = web!.address.replace(/\d+$/, '1');
    expect(files).toContain(`${web!.id.slice(0, 12)}\n${web!.id.slice(0, 12)}\n127.0.0.1\tlocalhost\n::1\tlocalhost`);
    expect(files).toContain(`${gateway}\tgate\n`);
    expect(files).toContain(`${web!.address}\t${web!.id.slice(0, 12)} 1.web.disc.gantry.internal\n`);
    expect(files).toContain(`nameserver ${gateway}\nsearch disc.gantry.internal gantry.internal corp.example\n`);
    expect(await sh('user', 'cat /etc/hosts')).toMatch(/^10\.22\d\.\S+\tlinked cache$/m);
  });

  test('reaches what it links to by the variables of its environment, on another host', async () => {
    const env = await sh('user', 'env');
    expect(env).toContain('LINKED_NAME=/user/linked\n');
    expect(env).toMatch(/^LINKED_PORT=tcp:\/\/10\.22\d\.\d+\.\d+:8080$/m);
    expect(env).toMatch(/^LINKED_PORT_11211_TCP_PORT=11211$/m);
    expect(env).toContain('LINKED_ENV_VERSION=1\n');
    const answer = await sh('user', 'wget -q -O - http://$LINKED_PORT_8080_TCP_ADDR:$LINKED_PORT_8080_TCP_PORT/');
    expect(answer).toContain('hello from');
    const many = await sh('web', 'env');
    expect(many).toContain('DATABASE_PORT_8080_TCP_ADDR=database\n');
    expect(many).toContain('DATABASE_ENV_ROLE=store\n');
  });
});

describe('network_mode', () => {
  test('host: the host’s addresses, name and files; healthy, reachable, and counted nowhere', async () => {
    const [task] = await cluster.settled('hosted', 1);
    expect(task).toMatchObject({ address: '10.90.0.1', health: 'healthy' });
    expect(await sh('hosted', 'hostname; ip -4 -o addr show eth0')).toMatch(/^h1\n.*10\.90\.0\.1/);
    expect(await sh('hosted', 'cat /etc/hosts')).toBe(await cluster.sandbox.run('h1', ['cat', '/etc/hosts']));
    expect(await cluster.http('http://10.90.0.1:8099/')).toContain('hello from h1');
    const { stdout } = await cluster.gantry('stats', 'hosted', '--json');
    expect(stdout).toContain('hosted');
  });

  test('none: a loopback and nothing else', async () => {
    await cluster.settled('alone', 1);
    expect(await sh('alone', 'ip -o link')).toMatch(/^1: lo: <LOOPBACK,UP[^\n]*\n$/);
    expect(await sh('alone', 'wget -q -O - http://127.0.0.1:8080/')).toContain('hello from');
    expect(await sh('alone', 'cat /etc/hosts')).not.toContain('10.');
  });

  test('service: the namespace, files and end of the other’s task', async () => {
    const [web] = await cluster.settled('web', 1);
    const [beside] = await cluster.settled('beside', 1);
    expect([beside!.node, beside!.address]).toEqual([web!.node, web!.address]);
    expect(await sh('beside', 'hostname; cat /etc/hosts')).toBe(await sh('web', 'hostname; cat /etc/hosts'));
    expect(await sh('beside', 'wget -q -O - http://127.0.0.1:8080/')).toContain(`hello from ${web!.id.slice(0, 12)}`);
    await sh('web', 'kill -USR1 1');
    const [next] = await eventually(async () => {
      const running = await cluster.settled('web', 1);
      if (running[0]!.id === web!.id) throw new Error('web is still the one before');
      return running;
    });
    const [after] = await eventually(async () => {
      const running = await cluster.settled('beside', 1);
      if (running[0]!.id === beside!.id) throw new Error('beside is still the one before');
      return running;
    });
    expect(after!.address).toBe(next!.address);
    expect(await sh('beside', 'wget -q -O - http://127.0.0.1:8080/')).toContain(`hello from ${next!.id.slice(0, 12)}`);
  });
});
