/** A name server that is killed loses no question: the next one answers what was asked meanwhile. */
import { type ChildProcess, spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import packet from 'dns-packet';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { framed, readMessages } from '#net/dns/upstream.ts';
import { endKeepers } from '#net/host/kept-sockets.ts';
import { eventually } from '#test/support/eventually.ts';
import { endsWithTest } from '#test/support/process.ts';

const address = '127.0.0.249';
const script = join(import.meta.dirname, '../../support/name-server-process.ts');
const query = packet.encode({ type: 'query', id: 7, questions: [{ name: 'web', type: 'A' }] });
let directory: string;
let port: number;
let server: ChildProcess | undefined;

beforeEach(async () => {
  directory = mkdtempSync(join(tmpdir(), 'gantry-kept-'));
  port = await freePort();
});
afterEach(async () => {
  await kill();
  endKeepers(directory);
  await eventually(() => ports().length === 0);
  rmSync(directory, { recursive: true, force: true });
});

async function freePort(): Promise<number> {
  const probe = net.createServer();
  await new Promise<void>((resolve) => probe.listen(0, address, resolve));
  const found = (probe.address() as net.AddressInfo).port;
  await new Promise((resolve) => probe.close(resolve));
  return found;
}

/** A server that gives `vip` for web. */
async function start(vip: string): Promise<void> {
  const child = spawn('setpriv', [...endsWithTest, process.execPath, script, directory, address, String(port), vip], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  server = child;
  await new Promise((resolve, reject) => {
    child.stdout.once('data', resolve);
    child.once('exit', (code) => reject(new Error(`the name server ended with ${code}`)));
  });
}

async function kill(): Promise<void> {
  const child = server;
  server = undefined;
  if (!child || child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGKILL');
  await ended;
}

/** Who is bound to the port, as the kernel lists it. */
function ports(): string[] {
  const wanted = `:${port.toString(16).toUpperCase().padStart(4, '0')} `;
  return readFileSync('/proc/net/udp', 'utf8')
    .split('\n')
    .filter((line) => line.includes(wanted) && line.includes('F900007F'));
}

const dataOf = (reply: Buffer) => (packet.decode(reply).answers ?? []).map((item) => ('data' in item ? item.data : ''));

/** The one answer that comes to a question asked once. */
function askUdp(): Promise<unknown[]> {
  const socket = dgram.createSocket('udp4');
  return new Promise((resolve, reject) => {
    socket.on('error', (error) => {
      socket.close();
      reject(error);
    });
    socket.on('message', (reply) => {
      socket.close();
      resolve(dataOf(reply));
    });
    socket.bind(0, '127.0.0.2', () => socket.connect(port, address, () => socket.send(query)));
  });
}

function askTcp(): Promise<unknown[]> {
  const socket = net.connect({ port, host: address, localAddress: '127.0.0.2' });
  socket.write(framed(query));
  return new Promise((resolve, reject) => {
    socket.on('error', reject);
    readMessages(socket, (reply) => {
      socket.destroy();
      resolve(dataOf(reply));
    });
  });
}

it('answers by the next process what was asked while there was none, by UDP and TCP', async () => {
  await start('10.224.0.2');
  expect(await askUdp()).toEqual(['10.224.0.2']);
  await kill();
  const waiting = [askUdp(), askUdp(), askTcp()];
  await start('10.224.0.7');
  expect(await Promise.all(waiting)).toEqual([['10.224.0.7'], ['10.224.0.7'], ['10.224.0.7']]);
  await kill();
  await start('10.224.0.8');
  expect([await askUdp(), await askTcp()]).toEqual([['10.224.0.8'], ['10.224.0.8']]);
  expect(readdirSync(directory)).toEqual([address]);
});

it('begins anew where nobody has kept anything, and leaves nothing when it is ended', async () => {
  await start('10.224.0.2');
  await kill();
  endKeepers(directory);
  await eventually(() => ports().length === 0);
  await expect(askUdp()).rejects.toThrow('ECONNREFUSED');
  await start('10.224.0.3');
  expect(await askUdp()).toEqual(['10.224.0.3']);
});
