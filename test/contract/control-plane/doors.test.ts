/** A whole control plane on a real etcd over mTLS: who gets in by which door, and as what. */

import { cpSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as grpc from '@grpc/grpc-js';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { assembleControlPlane, type ControlPlane } from '#control-plane/assemble.ts';
import { readConfig } from '#control-plane/config.ts';
import { createRequest, type KeyPair, requestDer } from '#control-plane/security/certificates.ts';
import { initPki, type Pki, pkiPaths } from '#control-plane/security/pki.ts';
import { certificateHash } from '#proto/certificates.ts';
import { enrolmentProof, tokenSecretHash } from '#proto/enrolment-proof.ts';
import { AgentService, EnrolmentService, type EnrolResponse } from '#proto/gen/gantry/v1/agent.ts';
import { ClusterService } from '#proto/gen/gantry/v1/cluster.ts';
import { OperatorClient, OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { systemRandom } from '#proto/kernel/random.ts';
import { parseToken } from '#proto/model/token.ts';
import { call } from '#proto/rpc.ts';
import { startEtcd, type TestEtcd } from '#test/support/etcd.ts';

const dataDir = mkdtempSync(join(tmpdir(), 'gantry-doors-'));
const socket = join(dataDir, 'control-plane.sock');
const faultOf = (code: string) => expect.objectContaining({ name: 'Fault', code });
const clients: grpc.Client[] = [];
let etcd: TestEtcd;
let pki: Pki;
let controlPlane: ControlPlane;
let operator: grpc.Client;

function run(data = dataDir): Promise<ControlPlane> {
  const flags = {
    data,
    name: 'm1',
    advertise: '127.0.0.1',
    etcd: etcd.url,
    socket,
    agentPort: '0',
    enrolPort: '0',
    metricsPort: '0',
  };
  return assembleControlPlane(readConfig(flags, {}), { clock: systemClock, random: systemRandom, log: silentLog });
}

function dial(address: string, pair?: KeyPair): grpc.Client {
  const ca = Buffer.from(pki.authority.certificate);
  const credentials = address.startsWith('unix:')
    ? grpc.credentials.createInsecure()
    : pair
      ? grpc.credentials.createSsl(ca, Buffer.from(pair.key), Buffer.from(pair.certificate))
      : grpc.credentials.createSsl(ca);
  const client = new grpc.Client(address, credentials);
  clients.push(client);
  return client;
}

const agentDoor = (pair?: KeyPair) => dial(`127.0.0.1:${controlPlane.agentPort}`, pair);

const remoteDoor = ({ certificate, key }: KeyPair) =>
  [
    `127.0.0.1:${controlPlane.agentPort}`,
    grpc.credentials.createSsl(Buffer.from(pki.authority.certificate), Buffer.from(key), Buffer.from(certificate)),
  ] as const;

async function linesOf(client: OperatorClient): Promise<string[]> {
  const parts: Uint8Array[] = [];
  for await (const { lines } of client.backup({})) parts.push(lines);
  return Buffer.concat(parts).toString().trimEnd().split('\n');
}

/** Joins as a machine of this name would; its key pair and what it was answered. */
async function join1(name: string, tokenText: string): Promise<{ pair: KeyPair; answer: EnrolResponse }> {
  const token = parseToken(tokenText);
  const { csrPem, key } = await createRequest(name);
  const answer = await call(dial(`127.0.0.1:${controlPlane.enrolPort}`), EnrolmentService.enrol, {
    tokenId: token.id,
    csrPem,
    proof: enrolmentProof(tokenSecretHash(token.secret), requestDer(csrPem)),
    name,
    former: undefined,
  });
  return { pair: { certificate: answer.certificatePem, key }, answer };
}

async function token(uses = 0): Promise<string> {
  return (await call(operator, OperatorService.createToken, { lifetimeMs: 60_000, uses })).token;
}

beforeAll(async () => {
  pki = await initPki({ dataDir, name: 'm1', advertise: '127.0.0.1' });
  const [server, client] = [pkiPaths(dataDir, 'etcd'), pkiPaths(dataDir, 'client')];
  etcd = await startEtcd({
    tls: { ca: server.ca, cert: server.cert, key: server.key, clientCert: client.cert, clientKey: client.key },
  });
  controlPlane = await run();
  operator = dial(`unix:${socket}`);
});
afterAll(async () => {
  for (const client of clients) client.close();
  await controlPlane?.close();
  await etcd?.close();
  rmSync(dataDir, { recursive: true, force: true });
});

describe('the doors of a control plane', () => {
  test('the operator socket is for its owner alone, and leads', async () => {
    expect(statSync(socket).mode & 0o777).toBe(0o600);
    const info = await call(operator, OperatorService.info, {});
    expect(info).toMatchObject({ leader: 'm1', epoch: 1, caFingerprint: certificateHash(pki.authority.certificate) });
    expect(info.cluster?.network).toBe('10.192.0.0/11');
  });

  test('who has not proven anything cannot make it take in megabytes', async () => {
    const request = {
      tokenId: 'x',
      csrPem: 'x'.repeat(1 << 20),
      proof: Buffer.alloc(32),
      name: 'h1',
      former: undefined,
    };
    const answer = call(dial(`127.0.0.1:${controlPlane.enrolPort}`), EnrolmentService.enrol, request);
    await expect(answer).rejects.toMatchObject({ code: 'exhausted' });
  });

  test('a token lets a machine in as a node', async () => {
    const text = await token();
    const [one, two] = await Promise.all([join1('h1', text), join1('h2', text)]);
    expect(one.answer.caPem).toBe(pki.authority.certificate);
    const { nodes } = await call(operator, OperatorService.list, {
      kind: 'node',
      service: '',
      node: '',
      project: '',
      all: false,
    });
    expect(nodes.map(({ node }) => node?.id).sort()).toEqual([one.answer.nodeId, two.answer.nodeId].sort());
  });

  test('a token of one use lets one machine in', async () => {
    const text = await token(1);
    const results = await Promise.allSettled([join1('once-a', text), join1('once-b', text)]);
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    await expect(join1('once-c', text)).rejects.toEqual(faultOf('unauthenticated'));
  });

  test('a node may renew its certificate, and is no operator and no replica', async () => {
    const { pair, answer } = await join1('h3', await token());
    const client = agentDoor(pair);
    const { csrPem } = await createRequest('whoever');
    const renewed = await call(client, AgentService.renew, { csrPem });
    expect(renewed.nodeId).toBe(answer.nodeId);
    await expect(call(client, OperatorService.info, {})).rejects.toEqual(faultOf('forbidden'));
    await expect(call(client, ClusterService.ping, {})).rejects.toEqual(faultOf('forbidden'));
  });

  test("a removed node's certificate is refused", async () => {
    const { pair } = await join1('h4', await token());
    await call(operator, OperatorService.removeNode, { name: 'h4', force: true });
    const { csrPem } = await createRequest('h4');
    await expect(call(agentDoor(pair), AgentService.renew, { csrPem })).rejects.toEqual(faultOf('unauthenticated'));
  });

  test('an operator with a certificate may do what the socket may, and is no node', async () => {
    const { csrPem, key } = await createRequest('alice');
    const { certificatePem } = await call(operator, OperatorService.issueCertificate, { csrPem, name: 'alice' });
    const client = agentDoor({ certificate: certificatePem, key });
    expect((await call(client, OperatorService.info, {})).leader).toBe('m1');
    await expect(call(client, AgentService.renew, { csrPem })).rejects.toEqual(faultOf('forbidden'));
  });

  test("a backup, with all keys in it, is handed out on a manager's socket alone", async () => {
    const { csrPem, key } = await createRequest('bob');
    const { certificatePem } = await call(operator, OperatorService.issueCertificate, { csrPem, name: 'bob' });
    const remote = new OperatorClient(...remoteDoor({ certificate: certificatePem, key }));
    clients.push(remote);
    await expect(linesOf(remote)).rejects.toMatchObject({ code: grpc.status.PERMISSION_DENIED });
    const local = new OperatorClient(`unix:${socket}`, grpc.credentials.createInsecure());
    clients.push(local);
    const lines = await linesOf(local);
    expect(lines[0]).toMatch(/^\["backup",\{.*"revision":\d+/);
    expect(lines.filter((line) => line.startsWith('["identity"')).length).toBe(3);
    expect(lines.filter((line) => line.startsWith('["record","node/')).length).toBeGreaterThan(2);
    expect(lines.at(-1)).toBe(`["end",{"records":${lines.length - 5}}]`);
  });

  test('replicas answer each other', async () => {
    const pong = await call(agentDoor(pki.pair('client')), ClusterService.ping, {});
    expect(pong).toMatchObject({ replica: 'm1', epoch: 1, leading: true });
  });

  test('without a certificate nobody is heard on the agent port', async () => {
    await expect(call(agentDoor(), ClusterService.ping, {}, { timeoutMs: 2_000 })).rejects.toEqual(
      expect.objectContaining({ name: 'Fault' }),
    );
  });

  test('monitoring is told who leads and what was committed', async () => {
    const at = `http://127.0.0.1:${controlPlane.metricsPort}`;
    expect((await fetch(`${at}/healthz`)).status).toBe(200);
    const text = await (await fetch(`${at}/metrics`)).text();
    expect(text).toContain('gantry_leading 1');
    expect(text).toMatch(/gantry_commit_seconds_count{outcome="ok"} [1-9]/);
  });

  test('a second control plane takes neither the data directory nor the socket of the first', async () => {
    await expect(run()).rejects.toThrow('a control plane is at work in');
    const other = join(dataDir, 'other');
    cpSync(join(dataDir, 'pki'), join(other, 'pki'), { recursive: true });
    await expect(run(other)).rejects.toThrow('another control plane');
  });

  test('after a restart it leads again at once, with the next epoch', async () => {
    await controlPlane.close();
    controlPlane = await run();
    operator = dial(`unix:${socket}`);
    expect(await call(operator, OperatorService.info, {})).toMatchObject({ leader: 'm1', epoch: 2 });
  });
});
