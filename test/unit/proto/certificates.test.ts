/** Why two that should work together do not believe each other. */
import { mkdtempSync, rmSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer, type Server } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { initPki, type Pki } from '#control-plane/security/pki.ts';
import { whyRefused } from '#proto/certificates.ts';

const directory = mkdtempSync(join(tmpdir(), 'gantry-certificates-'));
let server: Server;
let own: Pki;
let other: Pki;
beforeAll(async () => {
  const pkiIn = (name: string) => initPki({ dataDir: join(directory, name), name: 'm1', advertise: '127.0.0.1' });
  [own, other] = await Promise.all([pkiIn('own'), pkiIn('other')]);
  const { certificate: cert, key } = own.pair('server');
  server = createServer({ cert, key, ca: own.authority.trust, requestCert: true, ALPNProtocols: ['h2'] });
  server.on('tlsClientError', () => {});
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
});
afterAll(() => {
  server.close();
  rmSync(directory, { recursive: true, force: true });
});

const why = ({ pair, authority }: Pki) => {
  const { certificate: certificatePem, key: keyPem } = pair('client');
  const { port } = server.address() as AddressInfo;
  return whyRefused({ certificatePem, keyPem, caPem: authority.trust }, `127.0.0.1:${port}`, Date.now());
};

test('who serves with a certificate of another CA is told of', async () => {
  expect(await why(other)).toMatch(/a CA that is not trusted here.*before a rotation/);
});

test('of one CA they have no reason', async () => {
  expect(await why(own)).toBeUndefined();
});
