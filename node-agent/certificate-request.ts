/** A fresh key and the request to certify it, made in a thread that ends with it. */
import { Worker } from 'node:worker_threads';
import { Fault } from '#proto/kernel/errors.ts';

export interface CertificateRequest {
  /** PKCS#8, PEM. */
  readonly keyPem: string;
  readonly csrPem: string;
  readonly csrDer: Uint8Array;
}

/** ECDSA P-256. The authority decides the subject; `name` is for people. */
export function certificateRequest(name: string): Promise<CertificateRequest> {
  const url = new URL('./certificate-request-worker.ts', import.meta.url);
  return new Promise((resolve, reject) => {
    const thread = new Worker(url, { workerData: { name }, execArgv: [] });
    thread.once('message', resolve);
    thread.once('error', reject);
    thread.once('exit', () => reject(new Fault('internal', 'no certificate request was made')));
  });
}
