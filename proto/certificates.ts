/** What both ends of a connection look at in certificates: of which root one is, and why it may be refused. */
import { createHash, X509Certificate } from 'node:crypto';
import { connect } from 'node:tls';
import { splitHostPort } from './host-port.ts';

/** What a TLS client shows and trusts, PEM; the first certificate is its own. */
export interface TlsIdentity {
  readonly keyPem: string;
  readonly certificatePem: string;
  readonly caPem: string;
}

/** The certificates of a PEM text, one by one. */
export function certificatesIn(text: string): string[] {
  return (text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []).map((one) => `${one}\n`);
}

/** base64url SHA-256 of a certificate's DER. */
export function certificateHash(certificatePem: string): string {
  return createHash('sha256').update(new X509Certificate(certificatePem).raw).digest('base64url');
}

/** True where the first of `certificatePem` is signed by `rootPem`. */
export function isIssuedBy(certificatePem: string, rootPem: string): boolean {
  return new X509Certificate(certificatePem).verify(new X509Certificate(rootPem).publicKey);
}

/** Hash of the root that the identity's certificate is of; '' where it is of none that it trusts. */
export function issuerOf({ certificatePem, caPem }: Omit<TlsIdentity, 'keyPem'>): string {
  const root = certificatesIn(caPem).find((one) => isIssuedBy(certificatePem, one));
  return root ? certificateHash(root) : '';
}

/** How much of its life a certificate has behind it at `nowMs`: 0 fresh, 1 expired. */
export function lifeSpent(certificatePem: string, nowMs: number): number {
  const { validFrom, validTo } = new X509Certificate(certificatePem);
  const from = Date.parse(validFrom);
  return (nowMs - from) / (Date.parse(validTo) - from);
}

/**
 * Why the server at `address` (HOST:PORT) and who has this identity do not believe each other, and never will: a server says no word of
 * it. Undefined where certificates are not the reason, or that cannot be told.
 */
export async function whyRefused(identity: TlsIdentity, address: string, nowMs: number): Promise<string | undefined> {
  const own = new X509Certificate(identity.certificatePem);
  if (Date.parse(own.validTo) <= nowMs) return `its certificate has ended, at ${own.validTo}`;
  const shown = await shownBy(identity, address);
  if (shown === 'of another CA')
    return 'the control plane shows a certificate of a CA that is not trusted here: the cluster was restored with the CA of before a rotation, or is another one';
  if (!shown) return undefined;
  // Believed by way of a certificate between: the root it is of is newer than all that are known here.
  if (certificatesIn(identity.caPem).some((root) => shown.verify(new X509Certificate(root).publicKey)))
    return undefined;
  return "the cluster's CA was rotated meanwhile, and its certificate is of the one before";
}

/** What OpenSSL says of a chain that ends in a root which is not trusted, by code. */
const unknownRoot: ReadonlySet<string | undefined> = new Set([
  'SELF_SIGNED_CERT_IN_CHAIN',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
]);

/** The certificate of who serves there, where it is believed. */
function shownBy(
  { caPem, keyPem, certificatePem }: TlsIdentity,
  address: string,
): Promise<X509Certificate | 'of another CA' | undefined> {
  const { host, port } = splitHostPort(address);
  return new Promise((resolve) => {
    const options = { ca: caPem, key: keyPem, cert: certificatePem, ALPNProtocols: ['h2'], timeout: 2_000 };
    const socket = connect({ host, port, ...options }, () => {
      resolve(socket.getPeerX509Certificate());
      socket.destroy();
    });
    const none = () => {
      resolve(undefined);
      socket.destroy();
    };
    socket.on('error', ({ code }: NodeJS.ErrnoException) => {
      if (unknownRoot.has(code)) resolve('of another CA');
    });
    socket.on('error', none).on('timeout', none).on('close', none);
  });
}
