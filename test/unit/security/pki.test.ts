/** The files of a cluster's identity: made once, kept, renewed, and never readable by others. */

import { X509Certificate } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { rootAfter } from '#control-plane/security/authority-files.ts';
import { createAuthority, createRequest, dayMs, openAuthority } from '#control-plane/security/certificates.ts';
import { adoptAuthority, assertIdentity, assertInitialised, initPki, pkiPaths } from '#control-plane/security/pki.ts';
import { certificateHash, certificatesIn, isIssuedBy, lifeSpent } from '#proto/certificates.ts';
import { systemRandom } from '#proto/kernel/random.ts';

const faultOf = (code: string) => expect.objectContaining({ name: 'Fault', code });
let dataDir: string;
beforeEach(() => {
  dataDir = mkdtempSync(join(tmpdir(), 'gantry-pki-'));
});
afterEach(() => rmSync(dataDir, { recursive: true, force: true }));

const init = (more: { name?: string; advertise?: string; now?: () => number } = {}) =>
  initPki({ dataDir, name: 'm1', advertise: '10.0.0.1', ...more });

describe('the identity of a cluster', () => {
  test('is made once and found again', async () => {
    await expect(assertInitialised(dataDir)).rejects.toEqual(faultOf('precondition'));
    const first = await init();
    const again = await init();
    await assertInitialised(dataDir);
    expect(again.authority.hash).toBe(first.authority.hash);
    expect(again.sealKey).toEqual(first.sealKey);
    for (const holder of ['etcd', 'nats', 'server', 'client'] as const)
      expect(again.pair(holder)).toEqual(first.pair(holder));
  });

  test('is whole for a further manager with what the first one has just made, and not without any of it', async () => {
    await expect(assertIdentity(dataDir, 'm1')).rejects.toEqual(faultOf('precondition'));
    await init();
    await assertIdentity(dataDir, 'm1');
    rmSync(join(dataDir, 'pki/seal.key'));
    await expect(assertIdentity(dataDir, 'm1')).rejects.toThrow("lacks seal.key: the cluster's identity comes from m1");
  });

  test('keeps its keys from everybody else', async () => {
    await init();
    const keys = [join(dataDir, 'pki/ca.key'), join(dataDir, 'pki/seal.key'), pkiPaths(dataDir, 'server').key];
    for (const path of keys) expect(statSync(path).mode & 0o777).toBe(0o600);
  });

  test('names every address that its servers are reached at', async () => {
    const pki = await init();
    const certificate = new X509Certificate(pki.pair('etcd').certificate);
    for (const host of ['localhost', 'm1']) expect(certificate.checkHost(host)).toBe(host);
    for (const address of ['127.0.0.1', '10.0.0.1']) expect(certificate.checkIP(address)).toBe(address);
    expect(new X509Certificate(pki.pair('client').certificate).subject).toBe('O=control-plane\nCN=m1');
  });

  test('renews certificates that have lived half their life, or were issued for another address, and keeps its CA', async () => {
    const first = await init();
    const later = await init({ now: () => Date.now() + 200 * dayMs });
    expect(later.pair('server').certificate).not.toBe(first.pair('server').certificate);
    expect(later.authority.certificate).toBe(first.authority.certificate);
    const moved = await init({ advertise: '10.0.0.2' });
    expect(new X509Certificate(moved.pair('server').certificate).checkIP('10.0.0.2')).toBe('10.0.0.2');
  });

  test('takes a CA that another replica has made, also where that was interrupted at any file', async () => {
    const first = await init();
    const old = { certificate: first.authority.certificate, key: readFileSync(join(dataDir, 'pki/ca.key'), 'utf8') };
    const made = await rootAfter(old, systemRandom);
    const both = made.root.certificate + old.certificate;
    const asWritten = [
      { trust: both, cross: '', key: old.key },
      { trust: both, cross: made.cross, key: old.key },
    ];
    for (const files of asWritten) {
      await adoptAuthority(dataDir, files);
      const between = await init();
      expect(between.authority.hash).toBe(first.authority.hash);
      expect(between.pair('server').certificate).toBe(first.pair('server').certificate);
      expect(certificatesIn(between.authority.trust)).toHaveLength(2);
    }
    expect(await adoptAuthority(dataDir, { trust: both, cross: made.cross, key: made.key })).toBe(true);
    expect(await adoptAuthority(dataDir, { trust: both, cross: made.cross, key: made.key })).toBe(false);
    const after = await init();
    expect(after.authority.hash).toBe(made.root.hash);
    for (const holder of ['etcd', 'nats', 'server', 'client'] as const) {
      const [leaf, cross] = certificatesIn(after.pair(holder).certificate);
      expect(isIssuedBy(leaf!, made.root.certificate)).toBe(true);
      // Who knows only the old root believes it by this one.
      expect(isIssuedBy(cross!, old.certificate)).toBe(true);
    }
    expect(after.sealKey).toEqual(first.sealKey);
  });

  test('is not made anew where the key of its CA was lost', async () => {
    await init();
    rmSync(join(dataDir, 'pki/ca.key'));
    await expect(init()).rejects.toEqual(faultOf('corrupt'));
    expect(readFileSync(join(dataDir, 'pki/ca.pem'), 'utf8')).toContain('BEGIN CERTIFICATE');
  });
});

describe('an authority', () => {
  const authority = async () => {
    const root = await createAuthority('test', Date.now(), systemRandom);
    return openAuthority(root, Date.now, systemRandom);
  };
  const wish = { commonName: 'n1', role: 'node', hosts: [], server: false, lifetimeMs: dayMs } as const;

  test('decides the subject, whatever the request asks for', async () => {
    const issuer = await authority();
    const { csrPem } = await createRequest('somebody-else');
    const certificate = await issuer.issue({ ...wish, csrPem });
    expect(new X509Certificate(certificate).subject).toBe('O=node\nCN=n1');
    expect(isIssuedBy(certificate, issuer.certificate)).toBe(true);
    expect(isIssuedBy(certificate, (await authority()).certificate)).toBe(false);
    expect(new X509Certificate(certificate).ca).toBe(false);
  });

  test('refuses what is not a request', async () => {
    const issuer = await authority();
    for (const csrPem of ['', 'hello', issuer.certificate])
      await expect(issuer.issue({ ...wish, csrPem })).rejects.toEqual(faultOf('invalid'));
  });

  test('is known by the hash of its certificate', async () => {
    const issuer = await authority();
    expect(issuer.hash).toBe(certificateHash(issuer.certificate));
    expect(issuer.hash).toMatch(/^[A-Za-z0-9_-]{43}$/);
  });

  test('certificates are good for who has a clock that is an hour behind', async () => {
    const issuer = await authority();
    const { csrPem } = await createRequest('n1');
    const certificate = await issuer.issue({ ...wish, lifetimeMs: 90 * dayMs, csrPem });
    for (const pem of [certificate, issuer.certificate])
      expect(Date.parse(new X509Certificate(pem).validFrom)).toBeLessThan(Date.now() - 0.9 * dayMs);
  });

  test('certificates age from 0 to 1', async () => {
    const issuer = await authority();
    const { csrPem } = await createRequest('n1');
    const certificate = await issuer.issue({ ...wish, csrPem });
    // A tenth of it lies in the past.
    expect(lifeSpent(certificate, Date.now())).toBeCloseTo(0.09, 2);
    expect(lifeSpent(certificate, Date.now() + dayMs / 2)).toBeCloseTo(0.5, 1);
    expect(lifeSpent(certificate, Date.now() + dayMs)).toBeGreaterThanOrEqual(0.99);
  });
});
