/** What we rely on of grpc-js's experimental certificate provider: certificates change under a running server. */
import { connect } from 'node:tls';
import * as grpc from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  type Authority,
  createAuthority,
  dayMs,
  issuePair,
  type KeyPair,
  openAuthority,
} from '#control-plane/security/certificates.ts';
import { LiveCertificate } from '#control-plane/security/live-certificate.ts';
import { ClusterService } from '#proto/gen/gantry/v1/cluster.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { call, unary } from '#proto/rpc.ts';
import { eventually } from '#test/support/eventually.ts';

const newAuthority = async (name: string) =>
  openAuthority(await createAuthority(name, Date.now(), systemRandom), Date.now, systemRandom);
const pairOf = (authority: Authority, commonName: string) =>
  issuePair(authority, { commonName, role: 'control-plane', hosts: ['localhost'], server: true, lifetimeMs: dayMs });

let authority: Authority;
let client: KeyPair;
let live: LiveCertificate;
const server = new grpc.Server();
const clients: grpc.Client[] = [];
let port: number;

function dial(pair: KeyPair): grpc.Client {
  const made = new grpc.Client(
    `localhost:${port}`,
    grpc.credentials.createSsl(
      Buffer.from(authority.certificate),
      Buffer.from(pair.key),
      Buffer.from(pair.certificate),
    ),
    { 'grpc.use_local_subchannel_pool': 1 },
  );
  clients.push(made);
  return made;
}

/** The name that a new connection is shown. */
function presented(): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect(
      {
        host: 'localhost',
        port,
        ca: authority.certificate,
        cert: client.certificate,
        key: client.key,
        ALPNProtocols: ['h2'],
      },
      () => {
        resolve(String(socket.getPeerCertificate().subject.CN));
        socket.destroy();
      },
    );
    socket.on('error', reject);
  });
}

const replicaOf = async (by: grpc.Client) => (await call(by, ClusterService.ping, {}, { timeoutMs: 2_000 })).replica;

beforeAll(async () => {
  authority = await newAuthority('one');
  client = await pairOf(authority, 'client');
  live = new LiveCertificate(authority.certificate, await pairOf(authority, 'first'));
  server.addService(ClusterService, { ping: unary(async () => ({ replica: 'm1', epoch: 1, leading: true, atMs: 0 })) });
  port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('localhost:0', live.credentials({ clients: true }), (error, bound) =>
      error ? reject(error) : resolve(bound),
    ),
  );
});
afterAll(() => {
  for (const made of clients) made.close();
  server.forceShutdown();
});

describe('a certificate that is replaced while its server runs', () => {
  test('is shown to new connections, and open ones live on', async () => {
    const open = dial(client);
    expect(await replicaOf(open)).toBe('m1');
    expect(await presented()).toBe('first');
    live.replace(await pairOf(authority, 'second'));
    await eventually(async () => (await presented()) === 'second');
    expect(await replicaOf(open)).toBe('m1');
  });

  test('clients of another authority come in once it is trusted', async () => {
    const other = await newAuthority('two');
    const stranger = await pairOf(other, 'stranger');
    await expect(replicaOf(dial(stranger))).rejects.toEqual(expect.objectContaining({ name: 'Fault' }));
    live.trust(`${authority.certificate}\n${other.certificate}`);
    await eventually(async () => (await replicaOf(dial(stranger)).catch(() => '')) === 'm1');
  });
});
