/** The cluster's own certificate authority: one P-256 root, and certificates whose subject says who somebody is and in which role. */
import { certificateHash } from '#proto/certificates.ts';
import 'reflect-metadata';
import { createPrivateKey, type KeyObject, webcrypto } from 'node:crypto';
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
  /** All roots that are trusted, this one first, PEM. */
  readonly trust: string;
  /** A certificate, and what whoever trusts only an older root needs beside it. */
  issue(request: IssueRequest): Promise<string>;
}

/** The role as NATS reads it, which maps a certificate to a user by the URI in it (beside.ts). */
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
/** Certificates begin in the past: who checks them may have a clock that is behind, by an hour where somebody has taken local time for UTC. */
const skewMs = dayMs;

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
      // One below it: the root that takes its place.
      new x509.BasicConstraintsExtension(true, 1, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return { certificate: pem(certificate), key: await exportKey(keys.privateKey) };
}

/**
 * The certificate of the root `next`, signed by the root `by`: shown with what `next` issues, it is believed by whoever
 * trusts only `by`. Faults: `unsupported` where `by` may sign no other root.
 */
export async function crossSign(next: string, by: KeyPair, random: Random): Promise<string> {
  const root = new x509.X509Certificate(next);
  const signer = new x509.X509Certificate(by.certificate);
  const { pathLength } = signer.getExtension(x509.BasicConstraintsExtension) ?? {};
  if (pathLength !== undefined && pathLength < 1)
    throw new Fault('unsupported', 'the CA of this cluster was made to sign no other, by an older version of Gantry', {
      remedy: 'set up a new cluster, and apply your files there',
    });
  const cross = await x509.X509CertificateGenerator.create({
    serialNumber: serial(random),
    subject: root.subject,
    issuer: signer.subject,
    notBefore: root.notBefore,
    notAfter: new Date(Math.min(signer.notAfter.getTime(), root.notAfter.getTime())),
    signingAlgorithm: algorithm,
    publicKey: await root.publicKey.export(),
    signingKey: await importKey(createPrivateKey(by.key)),
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(await root.publicKey.export()),
      await x509.AuthorityKeyIdentifierExtension.create(signer),
    ],
  });
  return pem(cross);
}

/** The authority of a root's texts. `cross`, PEM, goes with every certificate that it issues; `older` roots are trusted beside it. */
export async function openAuthority(
  root: KeyPair,
  now: () => number,
  random: Random,
  { cross = '', older = '' }: { readonly cross?: string; readonly older?: string } = {},
): Promise<Authority> {
  const certificate = new x509.X509Certificate(root.certificate);
  const signingKey = await importKey(createPrivateKey(root.key));
  return {
    certificate: root.certificate,
    hash: certificateHash(root.certificate),
    trust: root.certificate + older,
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
        notBefore: new Date(nowMs - Math.min(skewMs, request.lifetimeMs / 10)),
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
      return pem(issued) + cross;
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
