/** What a node's certificate opens at etcd and NATS, which trust the same CA: nothing at the one, the handing in of logs at the other. */

import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Etcd3 } from 'etcd3';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { etcdVariables, natsConfig } from '#control-plane/beside.ts';
import { ensureStream } from '#control-plane/nats-stream.ts';
import { issuePair, type KeyPair } from '#control-plane/security/certificates.ts';
import { etcdClientName, initPki, type Pki, pkiPaths } from '#control-plane/security/pki.ts';
import { nodeInbox } from '#node-agent/logs/nats-log-sink.ts';
import { openNats } from '#proto/nats.ts';
import { idOf } from '#test/support/builders.ts';
import { startEtcd, type TestEtcd } from '#test/support/etcd.ts';
import { eventually } from '#test/support/eventually.ts';
import { startNats, type TestNats } from '#test/support/nats.ts';

let dataDir: string;
let pki: Pki;
let node: KeyPair;
let operator: KeyPair;
beforeAll(async () => {
  dataDir = await mkdtemp(join(tmpdir(), 'gantry-roles-'));
  pki = await initPki({ dataDir, name: 'm1', advertise: '127.0.0.1' });
  const issue = (commonName: string, role: 'node' | 'operator') =>
    issuePair(pki.authority, { commonName, role, hosts: [], server: false, lifetimeMs: 3_600_000 });
  [node, operator] = [await issue(idOf('h1'), 'node'), await issue('localhost', 'operator')];
});
afterAll(() => rm(dataDir, { recursive: true, force: true }));

const alone = { name: 'm1', address: '127.0.0.1' };
const beside = () => ({ dataDir, name: alone.name, advertise: alone.address, managers: [alone] });

describe('etcd, told what init writes', () => {
  let etcd: TestEtcd;
  beforeAll(async () => {
    const [server, client] = [pkiPaths(dataDir, 'etcd'), pkiPaths(dataDir, 'client')];
    const variable = /^ETCD_CLIENT_CERT_ALLOWED_HOSTNAME=(.+)$/m;
    const [, name] = variable.exec(etcdVariables(beside())) ?? [];
    expect(name).toBe(etcdClientName);
    etcd = await startEtcd({
      tls: { ...server, clientCert: client.cert, clientKey: client.key },
      flags: [`--client-cert-allowed-hostname=${name}`],
    });
  });
  afterAll(() => etcd?.close());

  const read = async (pair: KeyPair) => {
    const client = new Etcd3({
      hosts: etcd.url,
      credentials: {
        rootCertificate: Buffer.from(pki.authority.certificate),
        privateKey: Buffer.from(pair.key),
        certChain: Buffer.from(pair.certificate),
      },
    });
    try {
      return await client.kv.range({ key: Buffer.from('x') }, { deadline: Date.now() + 1_500 });
    } finally {
      client.close();
    }
  };

  it('answers the control plane, and no node and no operator', async () => {
    expect(await read(pki.pair('client'))).toMatchObject({ kvs: [] });
    await expect(read(node)).rejects.toThrow();
    await expect(read(operator)).rejects.toThrow();
  });
});

describe('NATS, with the configuration that init writes', () => {
  let nats: TestNats;
  beforeAll(async () => {
    const text = natsConfig(beside(), '');
    const path = join(dataDir, 'nats.conf');
    // Port and store are the test's own.
    await writeFile(path, text.replace(/^(listen| {2}store_dir): .*$/gm, ''));
    nats = await startNats(['--config', path]);
  });
  afterAll(() => nats?.stop());

  const open = (pair: KeyPair, inboxPrefix?: string) =>
    openNats({
      url: nats.url.replace('nats:', 'tls:'),
      name: 'test',
      tls: { ca: pki.authority.certificate, cert: pair.certificate, key: pair.key },
      ...(inboxPrefix && { inboxPrefix }),
    });

  it('takes logs from nodes, and lets them read, change and delete nothing', async () => {
    const [ours, theirs] = [open(pki.pair('client')), open(node, nodeInbox)];
    await Promise.all([ours.ready(), theirs.ready()]);
    try {
      await ensureStream(ours.connection(), 'LOGS', ['logs.>'], { maxBytes: 1 << 20, maxAgeMs: 600_000 });
      await theirs.connection().jetstream().publish('logs.p.s.1.t', Buffer.from('line'));
      const manager = await ours.connection().jetstreamManager();
      expect((await manager.streams.info('LOGS')).state.messages).toBe(1);

      const denied = (subject: string) =>
        expect(theirs.connection().request(subject, '{}', { timeout: 500 }), subject).rejects.toThrow();
      await denied('$JS.API.STREAM.PURGE.LOGS');
      await denied('$JS.API.STREAM.DELETE.LOGS');
      await denied('$JS.API.CONSUMER.CREATE.LOGS');
      await denied('events.node');
      const heard: string[] = [];
      for (const subject of ['logs.>', 'events.>', '_INBOX.>'])
        theirs.connection().subscribe(subject, { callback: (error) => heard.push(error ? 'refused' : subject) });
      await eventually(() => heard.length === 3);
      expect(heard).toEqual(['refused', 'refused', 'refused']);
      expect((await manager.streams.info('LOGS')).state.messages).toBe(1);
    } finally {
      await Promise.all([ours.close(), theirs.close()]);
    }
  });

  it('knows no operators', async () => {
    const stranger = open(operator);
    const stopping = new AbortController();
    const ready = stranger.ready(stopping.signal);
    ready.catch(() => {});
    await eventually(async () => {
      const one = open(pki.pair('client'));
      await one.ready();
      await one.close();
      return true;
    });
    expect(stranger.connected).toBe(false);
    stopping.abort(new Error('enough'));
    await stranger.close();
  });
});
