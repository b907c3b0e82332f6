/** A fresh key and the request to certify it. A file of its own, loaded when needed: the library costs memory that an agent at work does not need. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import * as x509 from '@peculiar/x509';

export interface CertificateRequest {
  /** PKCS#8, PEM. */
  readonly keyPem: string;
  readonly csrPem: string;
  readonly csrDer: Uint8Array;
}

/** ECDSA P-256. The authority decides the subject; `name` is for people. */
export async function certificateRequest(name: string): Promise<CertificateRequest> {
  x509.cryptoProvider.set(webcrypto);
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' };
  const keys = await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify']);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${name}`,
    keys,
    signingAlgorithm: algorithm,
  });
  const pkcs8 = new Uint8Array(await webcrypto.subtle.exportKey('pkcs8', keys.privateKey));
  return {
    keyPem: x509.PemConverter.encode(pkcs8, 'PRIVATE KEY'),
    csrPem: request.toString('pem'),
    csrDer: new Uint8Array(request.rawData),
  };
}
