/** The text of a join token, so that the side that makes it and the side that reads it agree. */
import { Fault } from '../kernel/errors.ts';

/** `GANTRY-1.<base64url SHA-256 of the CA's DER>.<token id>.<base64url secret>`, in parts. */
export interface JoinToken {
  /** base64url of the SHA-256 of the CA certificate's DER: what the joining machine pins. */
  readonly caHash: string;
  readonly id: string;
  /** base64url; never stored, see `proto/enrolment-proof.ts`. */
  readonly secret: string;
}

const tokenPattern = /^GANTRY-1\.([A-Za-z0-9_-]{43})\.([a-z0-9]{25})\.([A-Za-z0-9_-]{22,86})$/;

/** The token's text. */
export function formatToken(token: JoinToken): string {
  return `GANTRY-1.${token.caHash}.${token.id}.${token.secret}`;
}

/** The parts of a token's text. Faults: `invalid`; the text itself is a secret and is not repeated in the message. */
export function parseToken(text: string): JoinToken {
  const [, caHash, id, secret] = tokenPattern.exec(text.trim()) ?? [];
  if (caHash === undefined || id === undefined || secret === undefined)
    throw new Fault('invalid', 'the join token is malformed', {
      remedy: 'copy it whole: it begins with GANTRY-1. and has four parts; `gantry token create` makes one',
    });
  return { caHash, id, secret };
}
