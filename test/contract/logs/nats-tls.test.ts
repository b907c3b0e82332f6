/** NATS is spoken to with mutual TLS, by the cluster's own certificates and nobody else's. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { initPki, pkiPaths } from '#control-plane/security/pki.ts';
import { type Nats, openNats } from '#proto/nats.ts';
import { eventually } from '#test/support/eventually.ts';
import { startNats, type TestNats } from '#test/support/nats.ts';

let directory: string;
let server: TestNats;
const opened: Nats[] = [];

beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'gantry-nats-tls-'));
  await initPki({ dataDir: join(directory, 'ours'), name: 'm1', advertise: '127.0.0.1' });
  await initPki({ dataDir: join(directory, 'theirs'), name: 'm1', advertise: '127.0.0.1' });
  const { cert, key, ca } = pkiPaths(join(directory, 'ours'), 'nats');
  server = await startNats(['--tlsverify', '--tlscert', cert, '--tlskey', key, '--tlscacert', ca]);
});
afterAll(async () => {
  for (const nats of opened) await nats.close();
  await server?.stop();
  await rm(directory, { recursive: true, force: true });
});

function open(whose: 'ours' | 'theirs' | 'nobody'): Nats {
  const files = whose === 'nobody' ? undefined : pkiPaths(join(directory, whose), 'client');
  const ca = pkiPaths(join(directory, 'ours'), 'client').ca;
  const tls = files ? { caFile: ca, certFile: files.cert, keyFile: files.key } : { caFile: ca };
  const nats = openNats({ url: server.url, name: whose, tls });
  opened.push(nats);
  return nats;
}

it('our certificate is taken, and taken again when the server comes back', async () => {
  const nats = open('ours');
  await nats.ready();
  expect(nats.connected).toBe(true);
  await server.kill();
  await eventually(() => !nats.connected);
  expect(() => nats.connection()).toThrow(expect.objectContaining({ code: 'unavailable' }));
  await server.start();
  await eventually(() => nats.connected);
});

it.each(['theirs', 'nobody'] as const)('a client with the certificate of %s is refused', async (whose) => {
  const nats = open(whose);
  await expect(nats.ready(AbortSignal.timeout(1_500))).rejects.toThrow();
  expect(nats.connected).toBe(false);
});

it('an address that is none is refused at once', () => {
  expect(() => openNats({ url: 'somewhere', name: 'x' })).toThrow(expect.objectContaining({ code: 'invalid' }));
});
