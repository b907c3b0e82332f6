/** The thread that makes a key and the request to certify it, and ends: the library's 15 MB are not kept by an agent at work. */
import 'reflect-metadata';
import { webcrypto } from 'node:crypto';
import { parentPort, workerData } from 'node:worker_threads';
import * as x509 from '@peculiar/x509';
import { assert } from '#proto/kernel/errors.ts';
import type { CertificateRequest } from './certificate-request.ts';

/** ECDSA P-256. The authority decides the subject; `name` is for people. */
async function certificateRequest(name: string): Promise<CertificateRequest> {
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

assert(parentPort, 'this file is a worker thread');
parentPort.postMessage(await certificateRequest((workerData as { name: string }).name));
