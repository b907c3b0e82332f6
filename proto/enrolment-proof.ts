/** How a joining machine proves that it has the token's secret without sending it, bound to the key it asks a certificate for. */
import { createHash, createHmac } from 'node:crypto';

/** What the control plane keeps of a token's secret (base64url): its SHA-256, hex. */
export function tokenSecretHash(secret: string): string {
  return createHash('sha256').update(Buffer.from(secret, 'base64url')).digest('hex');
}

/** `EnrolRequest.proof`: HMAC-SHA-256 over the DER of the CSR, keyed with the SHA-256 of the token's secret. */
export function enrolmentProof(secretHash: string, csrDer: Uint8Array): Buffer {
  return createHmac('sha256', Buffer.from(secretHash, 'hex')).update(csrDer).digest();
}
