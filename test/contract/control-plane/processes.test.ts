/** Control planes as processes: told wrong, told to stop, killed; a standby takes over, and a restart leads on. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { initPki, pkiPaths } from '#control-plane/security/pki.ts';
import { type InfoResponse, OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { call } from '#proto/rpc.ts';
import { startEtcd, type TestEtcd } from '#test/support/etcd.ts';
import { eventually } from '#test/support/eventually.ts';

const main = join(import.meta.dirname, '../../../control-plane/main.ts');
const root = mkdtempSync(join(tmpdir(), 'gantry-replicas-'));
const running = new Map<string, ChildProcess>();
let etcd: TestEtcd;
let etcdFiles: NonNullable<NonNullable<Parameters<typeof startEtcd>[0]>['tls']>;

const dataOf = (name: string) => join(root, name);
const socketOf = (name: string) => join(root, `${name}.sock`);

function start(name: string, more: Record<string, string> = {}): ChildProcess {
  const flags = {
    data: dataOf(name),
    name,
    advertise: '127.0.0.1',
    etcd: etcd.url,
    socket: socketOf(name),
    'agent-port': '0',
    'enrol-port': '0',
    'metrics-port': '0',
    ...more,
  };
  const args = Object.entries(flags).flatMap(([flag, value]) => [`--${flag}`, value]);
  const child = spawn(process.execPath, [main, 'run', ...args], { stdio: 'ignore' });
  running.set(name, child);
  return child;
}

async function stop(name: string, signal: NodeJS.Signals): Promise<number | null> {
  const child = running.get(name)!;
  running.delete(name);
  if (child.exitCode !== null) return child.exitCode;
  const gone = new Promise<number | null>((resolve) => child.once('exit', resolve));
  child.kill(signal);
  return gone;
}

async function info(name: string): Promise<InfoResponse> {
  const client = new grpc.Client(`unix:${socketOf(name)}`, grpc.credentials.createInsecure());
  try {
    return await call(client, OperatorService.info, {}, { timeoutMs: 1_000 });
  } finally {
    client.close();
  }
}

/** A process has to come up first. */
const patient = { timeoutMs: 90_000 };
const leads = (at: string, leader: string, epoch: number) =>
  eventually(async () => {
    const told = await info(at);
    return told.leader === leader && told.epoch === epoch;
  }, patient);

beforeAll(async () => {
  await initPki({ dataDir: dataOf('m1'), name: 'm1', advertise: '127.0.0.1' });
  mkdirSync(join(dataOf('m2'), 'pki'), { recursive: true });
  for (const file of ['ca.pem', 'ca.key', 'seal.key'])
    cpSync(join(dataOf('m1'), 'pki', file), join(dataOf('m2'), 'pki', file));
  const [server, client] = [pkiPaths(dataOf('m1'), 'etcd'), pkiPaths(dataOf('m1'), 'client')];
  etcdFiles = { ca: server.ca, cert: server.cert, key: server.key, clientCert: client.cert, clientKey: client.key };
  etcd = await startEtcd({ tls: etcdFiles });
});
afterAll(async () => {
  for (const name of [...running.keys()]) await stop(name, 'SIGKILL');
  await etcd?.close();
  rmSync(root, { recursive: true, force: true });
});

describe('the control plane as a process', () => {
  test('says what is wrong with how it was called, and ends with 1', () => {
    const { status, stderr } = spawnSync(process.execPath, [main, 'run', '--name', 'm1', '--agent-port', 'x'], {
      encoding: 'utf8',
    });
    expect(status).toBe(1);
    expect(stderr).toMatch(/--advertise must be given/);
    expect(stderr).toMatch(/--agent-port must be a port number/);
    expect(stderr).not.toMatch(/at .*\.ts:/);
  });

  test('says that it has no identity yet', () => {
    const args = [main, 'run', '--data', join(root, 'none'), '--name', 'm1', '--advertise', '127.0.0.1'];
    const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect(status).toBe(1);
    expect(stderr).toContain('control-plane init');
  });

  test('a standby follows the leader, takes over when it is killed, and does not give back', async () => {
    start('m1');
    await leads('m1', 'm1', 1);
    start('m2');
    await leads('m2', 'm1', 1);
    await stop('m1', 'SIGKILL');
    await leads('m2', 'm2', 2);
    start('m1');
    await leads('m1', 'm2', 2);
  });

  test('a leader that is killed and started again at once leads on with the next epoch', async () => {
    await stop('m1', 'SIGTERM');
    await stop('m2', 'SIGKILL');
    start('m2');
    await leads('m2', 'm2', 3);
  });

  test('goes on when etcd was killed and started again', async () => {
    await etcd.kill('SIGKILL');
    await etcd.start();
    const client = new grpc.Client(`unix:${socketOf('m2')}`, grpc.credentials.createInsecure());
    const { info: token } = await call(client, OperatorService.createToken, { lifetimeMs: 60_000, uses: 1 });
    client.close();
    expect(token?.usesLeft).toBe(1);
    expect((await info('m2')).leader).toBe('m2');
  });

  test('ends with 0 when it is told to stop', async () => {
    expect(await stop('m2', 'SIGTERM')).toBe(0);
  });

  test('that is not the first of several waits for the first to found the cluster, and says so to who asks it', async () => {
    const empty = await startEtcd({ tls: etcdFiles });
    const more = { etcd: empty.url, managers: 'm1=127.0.0.1,m2=127.0.0.2,m3=127.0.0.3' };
    start('m2', { ...more, advertise: '127.0.0.2' });
    const refusal = {
      code: 'unavailable',
      remedy: expect.stringContaining('start etcd, NATS and the control plane of m1'),
    };
    const asked = () =>
      info('m2').then(
        () => undefined,
        (fault) => (fault.message.includes('no cluster') ? fault : undefined),
      );
    expect(await eventually(asked, patient)).toMatchObject({
      ...refusal,
      message: expect.stringContaining('m1 founds it'),
    });
    const client = new grpc.Client(`unix:${socketOf('m2')}`, grpc.credentials.createInsecure());
    const { path, requestSerialize, responseDeserialize } = OperatorService.events;
    const events = client.makeServerStreamRequest(path, requestSerialize, responseDeserialize, {
      follow: true,
      sinceMs: 0,
    });
    const ended = new Promise<Error>((resolve) => events.once('error', resolve));
    expect((await ended).message).toContain('there is no cluster yet');
    client.close();
    start('m1', more);
    await eventually(async () => (await info('m1')).epoch === 1 && (await info('m2')).epoch === 1, patient);
    for (const name of ['m1', 'm2']) expect(await stop(name, 'SIGTERM')).toBe(0);
    await empty.close();
  });
});
