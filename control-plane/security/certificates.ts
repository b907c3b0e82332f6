/** The cluster's own certificate authority: one P-256 root, and certificates whose subject says who somebody is and in which role. */
import 'reflect-metadata';
import { createHash, createPrivateKey, type KeyObject, webcrypto, X509Certificate } from 'node:crypto';
import * as x509 from '@peculiar/x509';
import { Fault } from '#proto/kernel/errors.ts';
import type { Random } from '#proto/kernel/random.ts';

x509.cryptoProvider.set(webcrypto);

/** Who the holder of a certificate is: the O of its subject. */
export type Role = 'node' | 'operator' | 'control-plane' | 'infrastructure';

/** PEM texts; the key is PKCS#8. */
export interface KeyPair {
  readonly certificate: string;
  readonly key: string;
}

export interface Authority {
  readonly certificate: string;
  /** base64url SHA-256 of the certificate's DER: what join tokens pin. */
  readonly hash: string;
  issue(request: IssueRequest): Promise<string>;
}

/** The role as NATS reads it, which maps a certificate to a user by the URI in it (systemd/nats.conf). */
export function roleUri(role: Role): string {
  return `gantry://${role}`;
}

export interface IssueRequest {
  readonly csrPem: string;
  /** Replaces whatever subject the request asks for. */
  readonly commonName: string;
  readonly role: Role;
  /** Of a node, as its record has it: the OU of the subject. */
  readonly enrolment?: string | undefined;
  /** Names and addresses that the holder may serve under. */
  readonly hosts: readonly string[];
  readonly server: boolean;
  readonly lifetimeMs: number;
}

export const dayMs = 86_400_000;
const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const;
/** Certificates begin a little in the past: the clocks of machines differ. */
const skewMs = 300_000;

/** A new self-signed root of ten years. */
export async function createAuthority(name: string, nowMs: number, random: Random): Promise<KeyPair> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const certificate = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(random),
    name: `CN=${name}, O=gantry`,
    notBefore: new Date(nowMs - skewMs),
    notAfter: new Date(nowMs + 3_650 * dayMs),
    signingAlgorithm: algorithm,
    keys,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pem(certificate), key: await exportKey(keys.privateKey) };
}

/** The authority of a root's texts. */
export async function openAuthority(root: KeyPair, now: () => number, random: Random): Promise<Authority> {
  const certificate = new x509.X509Certificate(root.certificate);
  const signingKey = await importKey(createPrivateKey(root.key));
  return {
    certificate: root.certificate,
    hash: authorityHash(root.certificate),
    async issue(request) {
      const csr = await parseRequest(request.csrPem);
      const nowMs = now();
      const issued = await x509.X509CertificateGenerator.create({
        serialNumber: serial(random),
        subject: new x509.Name([
          { O: [request.role] },
          ...(request.enrolment ? [{ OU: [request.enrolment] }] : []),
          { CN: [request.commonName] },
        ]).toString(),
        issuer: certificate.subject,
        notBefore: new Date(nowMs - skewMs),
        notAfter: new Date(nowMs + request.lifetimeMs),
        signingAlgorithm: algorithm,
        publicKey: await csr.publicKey.export(),
        signingKey,
        extensions: [
          new x509.BasicConstraintsExtension(false, undefined, true),
          new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
          new x509.ExtendedKeyUsageExtension([
            x509.ExtendedKeyUsage.clientAuth,
            ...(request.server ? [x509.ExtendedKeyUsage.serverAuth] : []),
          ]),
          new x509.SubjectAlternativeNameExtension([
            ...(request.hosts.length > 0 ? request.hosts : [request.commonName]).map((host) => ({
              type: isAddress(host) ? ('ip' as const) : ('dns' as const),
              value: host,
            })),
            { type: 'url' as const, value: roleUri(request.role) },
          ]),
          await x509.AuthorityKeyIdentifierExtension.create(certificate),
        ],
      });
      return pem(issued);
    },
  };
}

/** A fresh key and a request for it; the authority decides the subject. */
export async function createRequest(commonName: string): Promise<{ readonly csrPem: string; readonly key: string }> {
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${commonName}`,
    keys,
    signingAlgorithm: algorithm,
  });
  return { csrPem: `${request.toString('pem')}\n`, key: await exportKey(keys.privateKey) };
}

/** A key made here, with a certificate for it. */
export async function issuePair(authority: Authority, request: Omit<IssueRequest, 'csrPem'>): Promise<KeyPair> {
  const { csrPem, key } = await createRequest(request.commonName);
  return { certificate: await authority.issue({ ...request, csrPem }), key };
}

/** The DER of a request, for the proof over it. Faults: `invalid`. */
export function requestDer(csrPem: string): Uint8Array {
  return new Uint8Array(readRequest(csrPem).rawData);
}

/** base64url SHA-256 of a certificate's DER. */
export function authorityHash(certificatePem: string): string {
  return createHash('sha256').update(new X509Certificate(certificatePem).raw).digest('base64url');
}

/** How much of its life a certificate has behind it at `nowMs`: 0 fresh, 1 expired. */
export function lifeSpent(certificatePem: string, nowMs: number): number {
  const { validFrom, validTo } = new X509Certificate(certificatePem);
  const from = Date.parse(validFrom);
  return (nowMs - from) / (Date.parse(validTo) - from);
}

/** True where `certificatePem` is signed by `authorityPem`. */
export function isIssuedBy(certificatePem: string, authorityPem: string): boolean {
  return new X509Certificate(certificatePem).verify(new X509Certificate(authorityPem).publicKey);
}

async function parseRequest(csrPem: string): Promise<x509.Pkcs10CertificateRequest> {
  const csr = readRequest(csrPem);
  const { namedCurve } = csr.publicKey.algorithm as EcKeyAlgorithm;
  if (namedCurve !== 'P-256') throw new Fault('invalid', 'the certificate request is not for a P-256 key');
  if (!(await csr.verify())) throw new Fault('invalid', 'the certificate request is not signed by its own key');
  return csr;
}

function readRequest(csrPem: string): x509.Pkcs10CertificateRequest {
  try {
    return new x509.Pkcs10CertificateRequest(csrPem);
  } catch (error) {
    throw new Fault('invalid', 'the certificate request is not PEM of a PKCS#10 request', { cause: error });
  }
}

interface EcKeyAlgorithm {
  readonly namedCurve?: string;
}

function importKey(key: KeyObject): Promise<webcrypto.CryptoKey> {
  const der = new Uint8Array(key.export({ format: 'der', type: 'pkcs8' }));
  return webcrypto.subtle.importKey('pkcs8', der, algorithm, false, ['sign']);
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const body = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key)).toString('base64');
  return `-----BEGIN PRIVATE KEY-----\n${body.match(/.{1,64}/g)!.join('\n')}\n-----END PRIVATE KEY-----\n`;
}

function pem(certificate: x509.X509Certificate): string {
  return `${certificate.toString('pem')}\n`;
}

/** Positive, whatever its first byte. */
function serial(random: Random): string {
  const bytes = random.bytes(16);
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return Buffer.from(bytes).toString('hex');
}

function isAddress(host: string): boolean {
  return /^[\d.]+$/.test(host) || host.includes(':');
}
