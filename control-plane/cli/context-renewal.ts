/** A context keeps itself good: its certificate is renewed when half of its life has passed, or when the cluster has a new CA. */
import { X509Certificate } from 'node:crypto';
import { issuerOf, lifeSpent } from '#proto/certificates.ts';
import { type OperatorClient, OperatorService } from '#proto/gen/gantry/v1/operator.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { call } from '#proto/rpc.ts';
import { type Context, saveContext } from './context-file.ts';

const timeoutMs = 3_000;

/** Beside a command: what fails here is tried again with the next one. */
export async function renewContext(name: string, context: Context, client: OperatorClient): Promise<void> {
  try {
    const { certificate: certificatePem, ca: caPem } = context;
    const { caFingerprint } = await call(client, OperatorService.info, {}, { timeoutMs });
    const isNewest = issuerOf({ certificatePem, caPem }) === caFingerprint;
    if (isNewest && lifeSpent(certificatePem, systemClock.now()) < 0.5) return;
    const operator = /^CN=(.+)$/m.exec(new X509Certificate(certificatePem).subject)?.[1] ?? name;
    const { createRequest } = await import('./certificate-request.ts');
    const { csrPem, key } = await createRequest(operator);
    const issued = await call(client, OperatorService.issueCertificate, { csrPem, name: operator }, { timeoutMs });
    saveContext(name, { ...context, ca: issued.caPem, certificate: issued.certificatePem, key });
  } catch (error) {
    if (!isFault(error)) throw error;
  }
}
