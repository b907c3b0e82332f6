/** Published ports on 127.0.0.1: opened and closed as the cluster says, spread over its hosts, honest about ports that are taken. */

import { createSocket, type Socket as UdpSocket } from 'node:dgram';
import { mkdtempSync, rmSync } from 'node:fs';
import { type AddressInfo, connect, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { onDatagrams, sendDatagram } from '#node-agent/sandbox/datagrams.ts';
import { type Forwarder, openForwarder } from '#node-agent/sandbox/forwarder.ts';
import type { PublishedPort } from '#node-agent/sandbox/operator.ts';
import { sleepOn, systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { eventually } from '#test/support/eventually.ts';

const dir = mkdtempSync(join(tmpdir(), 'gfwd-'));
const gateway = join(dir, 'gateway.sock');
const cluster = { ports: [] as PublishedPort[], nodes: ['10.90.0.1', '10.90.0.2'], dead: new Set<string>() };
let gatewayServer: Server;
let forwarder: Forwarder;
let look: () => void = () => {};

/** Looks again when the test says so, not a second later. */
const clock = {
  ...systemClock,
  after(_ms: number, action: () => void) {
    look = action;
    return { cancel() {} };
  },
  sleep: (ms: number) => sleepOn(systemClock, ms),
};

beforeAll(async () => {
  gatewayServer = createServer((socket) => {
    socket.on('error', () => {});
    socket.once('data', (line) => {
      const [protocol, target = ''] = line.toString().trim().split(' ');
      if (cluster.dead.has(target.split(':')[0] as string)) return socket.end('ECONNREFUSED\n');
      if (protocol === 'tcp') return socket.end(`ok\nfrom ${target}`);
      socket.write('ok\n');
      onDatagrams(socket, (datagram) => sendDatagram(socket, Buffer.from(`${datagram} by ${target}`)));
    });
  });
  await new Promise<void>((resolve) => gatewayServer.listen(gateway, resolve));
  forwarder = openForwarder({
    gateway,
    clock,
    log: silentLog,
    operator: {
      publishedPorts: async () => cluster.ports,
      readyNodes: async () => cluster.nodes.map((address) => ({ name: address, address })),
    },
  });
});

afterAll(async () => {
  cluster.ports = [];
  look();
  await eventually(() => forwarder.ports().length === 0);
  gatewayServer.close();
  rmSync(dir, { recursive: true });
});

async function publish(...ports: number[]): Promise<void> {
  return publishAs('tcp', ...ports);
}

async function publishAs(protocol: 'tcp' | 'udp', ...ports: number[]): Promise<void> {
  cluster.ports = ports.map((port) => ({ port, protocol }));
  look();
  await eventually(() => forwarder.ports().length === ports.length);
}

/** A port of 127.0.0.1 that was free a moment ago. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

function read(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = '';
    const socket = connect(port, '127.0.0.1');
    socket.on('data', (chunk) => {
      text += chunk;
    });
    socket.on('error', reject);
    socket.on('close', () => resolve(text));
  });
}

test('a published port leads to the hosts in turn, and is closed when it is published no more', async () => {
  const port = await freePort();
  await publish(port);
  const answers = await eventually(async () => [await read(port), await read(port)]);
  expect(answers.sort()).toEqual([`from 10.90.0.1:${port}`, `from 10.90.0.2:${port}`]);
  await publish();
  await expect(read(port)).rejects.toThrow('ECONNREFUSED');
});

test('a host that does not answer is passed over', async () => {
  const port = await freePort();
  await publish(port);
  cluster.dead.add('10.90.0.1');
  const answers = await eventually(async () => [await read(port), await read(port), await read(port)]);
  cluster.dead.clear();
  expect(new Set(answers)).toEqual(new Set([`from 10.90.0.2:${port}`]));
});

test('no host at all ends the connection', async () => {
  const port = await freePort();
  await publish(port);
  for (const address of cluster.nodes) cluster.dead.add(address);
  expect(await eventually(async () => `read ${await read(port)}`)).toBe('read ');
  cluster.dead.clear();
});

test('a port that another process has is reported, and taken once it is free', async () => {
  const other = createServer();
  await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
  const { port } = other.address() as AddressInfo;
  await publish(port);
  await eventually(() => forwarder.ports()[0]?.problem === 'taken by another process of this machine');
  await new Promise((resolve) => other.close(resolve));
  await eventually(() => {
    look();
    return forwarder.ports()[0]?.problem === undefined;
  });
  expect(await eventually(() => read(port))).toContain(`:${port}`);
});

/** A client of its own port; what it hears is kept. */
function udpClient(): { readonly socket: UdpSocket; readonly heard: string[]; say(text: string, port: number): void } {
  const socket = createSocket('udp4');
  const heard: string[] = [];
  socket.on('message', (datagram) => heard.push(datagram.toString()));
  return { socket, heard, say: (text, port) => socket.send(text, port, '127.0.0.1') };
}

test('each client of a UDP port is a flow of its own to one host, and hears its own answers', async () => {
  const port = await freePort();
  await publishAs('udp', port);
  const [one, two] = [udpClient(), udpClient()];
  try {
    for (const text of ['a', '', 'x'.repeat(60_000)]) one.say(text, port);
    await eventually(() => one.heard.length === 3);
    two.say('b', port);
    await eventually(() => two.heard.length === 1);
    const [host] = /10\.90\.0\.[12]/.exec(one.heard[0] as string) as RegExpExecArray;
    expect(one.heard.map((text) => text.replace(/x+/, 'x'))).toEqual(
      ['a', '', 'x'].map((text) => `${text} by ${host}:${port}`),
    );
    expect(two.heard).toEqual([`b by ${host === '10.90.0.1' ? '10.90.0.2' : '10.90.0.1'}:${port}`]);
  } finally {
    for (const { socket } of [one, two]) socket.close();
  }
});

test('a UDP port passes over a host that has no way, is closed when published no more, and reported where it is taken', async () => {
  const other = createSocket('udp4');
  await new Promise<void>((resolve) => other.bind(0, '127.0.0.1', resolve));
  const { port } = other.address();
  await publishAs('udp', port);
  await eventually(() => forwarder.ports()[0]?.problem === 'taken by another process of this machine');
  await new Promise<void>((resolve) => other.close(resolve));
  await eventually(() => {
    look();
    return forwarder.ports()[0]?.problem === undefined;
  });
  cluster.dead.add('10.90.0.1');
  const client = udpClient();
  try {
    for (let index = 0; index < 3; index++) {
      await eventually(() => {
        client.say('a', port);
        return client.heard.length > index;
      });
    }
    expect(new Set(client.heard)).toEqual(new Set([`a by 10.90.0.2:${port}`]));
  } finally {
    cluster.dead.clear();
    client.socket.close();
  }
  await publish();
  await new Promise<void>((resolve, reject) => {
    const free = createSocket('udp4').on('error', reject);
    free.bind(port, '127.0.0.1', () => free.close(() => resolve()));
  });
});
