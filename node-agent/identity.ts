/** Who this machine is: its key and certificate, won with a join token, kept under the data directory, renewed in time. */

import { createHash, X509Certificate } from 'node:crypto';
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { connect, type DetailedPeerCertificate } from 'node:tls';
import * as grpc from '@grpc/grpc-js';
import type { TlsIdentity } from '#proto/certificates.ts';
import { enrolmentProof, tokenSecretHash } from '#proto/enrolment-proof.ts';
import { EnrolmentClient, EnrolmentService, type EnrolResponse } from '#proto/gen/gantry/v1/agent.ts';
import { splitHostPort } from '#proto/host-port.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type BackoffPolicy, retry } from '#proto/kernel/retry.ts';
import { type NodeId, nodeId } from '#proto/model/ids.ts';
import { type JoinToken, parseToken } from '#proto/model/token.ts';
import { call, channelOptions } from '#proto/rpc.ts';
import { certificateRequest } from './certificate-request.ts';
import { whyClock } from './clock-check.ts';

export interface NodeIdentity extends TlsIdentity {
  readonly nodeId: NodeId;
}

/** Where the identity lies: one file, so that key and certificate are replaced together. Others are for tools to read. */
export function identityPaths(data: string): { bundle: string; key: string; cert: string; ca: string } {
  const directory = join(data, 'identity');
  return {
    bundle: join(directory, 'identity.json'),
    key: join(directory, 'key.pem'),
    cert: join(directory, 'cert.pem'),
    ca: join(directory, 'ca.pem'),
  };
}

/** Undefined where this machine has none yet. */
export async function loadIdentity(data: string): Promise<NodeIdentity | undefined> {
  const { bundle } = identityPaths(data);
  let text: string;
  try {
    text = await readFile(bundle, 'utf8');
  } catch {
    return undefined;
  }
  try {
    const identity = JSON.parse(text) as NodeIdentity;
    new X509Certificate(identity.certificatePem);
    return identity;
  } catch (error) {
    throw new Fault('corrupt', `the identity of this node in ${bundle} cannot be read: ${describe(error)}`, {
      cause: error,
      remedy: 'remove the node (gantry node rm), delete that file, and join again with a new token',
    });
  }
}

/** What a machine that was a member tells of it when it joins again: that its volumes are still here. */
export interface FormerMember {
  readonly nodeId: NodeId;
  /** Empty in certificates of before there were any. */
  readonly enrolment: string;
}

/** Where an operator moves the identity that the cluster takes no more, so that the machine joins again as the node it was. */
export function formerPath(data: string): string {
  return join(data, 'identity.former');
}

/** Undefined where this machine was no member, or nothing of it can be read. */
export async function formerMember(data: string): Promise<FormerMember | undefined> {
  try {
    const text = await readFile(join(formerPath(data), 'identity.json'), 'utf8');
    const { nodeId, certificatePem } = JSON.parse(text) as NodeIdentity;
    const { subject } = new X509Certificate(certificatePem);
    return { nodeId, enrolment: /^OU=(.+)$/m.exec(subject)?.[1] ?? '' };
  } catch {
    return undefined;
  }
}

/** All of it; what is read back is whole. */
export async function storeIdentity(data: string, identity: NodeIdentity): Promise<void> {
  const paths = identityPaths(data);
  await mkdir(join(data, 'identity'), { recursive: true, mode: 0o700 });
  const write = async (path: string, text: string) => {
    const next = `${path}.next`;
    await writeFile(next, text, { mode: 0o600, flush: true });
    await rename(next, path);
  };
  await write(paths.key, identity.keyPem);
  await write(paths.cert, identity.certificatePem);
  await write(paths.ca, identity.caPem);
  // Last: what is read back is whole.
  await write(paths.bundle, JSON.stringify(identity));
}

export interface EnrolParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The agent's data directory. */
  readonly data: string;
  /** The replicas' enrolment ports, HOST:PORT; asked in turn until one answers. */
  readonly addresses: readonly string[];
  readonly token: string;
  /** This host's name. */
  readonly name: string;
  /** It was a member before. */
  readonly former?: FormerMember | undefined;
  readonly signal?: AbortSignal;
}

const enrolBackoff: BackoffPolicy = { initialMs: 200, maxMs: 2_000 };

/**
 * Makes this machine a member; waits while nobody answers there.
 * Faults: `invalid` (malformed token), `forbidden` (another CA than the token's), `unauthenticated` (token expired or revoked),
 * `exists` (the name is that of another machine).
 */
export async function enrol(parts: EnrolParts): Promise<NodeIdentity> {
  const token = parseToken(parts.token);
  const request = await certificateRequest(parts.name);
  const proof = enrolmentProof(tokenSecretHash(token.secret), request.csrDer);
  const { addresses } = parts;
  const attempt = async (number: number): Promise<EnrolResponse> => {
    const address = addresses[(number - 1) % addresses.length]!;
    try {
      const caPem = await pinnedAuthority(address, token);
      const response = await enrolWith(parts, address, token, caPem, { csrPem: request.csrPem, proof });
      assertPinned(response.caPem, token, address);
      return response;
    } catch (error) {
      if (number <= addresses.length && isTransient(error)) {
        const clocks = await whyClock([address], parts.clock);
        const why = [describe(error), clocks].filter((one) => one !== undefined).join('; ');
        parts.log.warn('cannot join yet, trying again', { address, why });
      }
      throw error;
    }
  };
  const response = await retry(parts, enrolBackoff, attempt, isTransient);
  const identity: NodeIdentity = {
    nodeId: nodeId(response.nodeId),
    keyPem: request.keyPem,
    certificatePem: response.certificatePem,
    caPem: response.caPem,
  };
  await storeIdentity(parts.data, identity);
  return identity;
}

function isTransient(error: unknown): boolean {
  return isFault(error, 'unavailable', 'timeout', 'conflict', 'internal', 'cancelled');
}

async function enrolWith(
  parts: EnrolParts,
  address: string,
  token: JoinToken,
  caPem: string,
  request: { readonly csrPem: string; readonly proof: Buffer },
): Promise<EnrolResponse> {
  const client = new EnrolmentClient(address, grpc.credentials.createSsl(Buffer.from(caPem)), channelOptions);
  try {
    return await call(client, EnrolmentService.enrol, {
      ...request,
      tokenId: token.id,
      name: parts.name,
      former: parts.former,
    });
  } finally {
    client.close();
  }
}

function hashOf(der: Uint8Array): string {
  return createHash('sha256').update(der).digest('base64url');
}

function assertPinned(caPem: string, token: JoinToken, address: string): void {
  if (hashOf(new X509Certificate(caPem).raw) !== token.caHash) throw otherAuthority(address);
}

function otherAuthority(address: string): Fault {
  return new Fault(
    'forbidden',
    `${address} is not of the cluster that this join token is for: its CA is another one, or was rotated since`,
    {
      remedy: 'check --enrol and the token; make a new one on a manager of that cluster: gantry token create',
    },
  );
}

/** The CA that the server's chain ends in, if it is the token's; everything after this handshake is verified against it. */
function pinnedAuthority(address: string, token: JoinToken): Promise<string> {
  const { host, port } = splitHostPort(address);
  return new Promise((resolve, reject) => {
    // Not verified here on purpose: what is trusted is not known before the chain was seen.
    const socket = connect({ host, port, rejectUnauthorized: false, ALPNProtocols: ['h2'], timeout: 5_000 }, () => {
      const found = authorityIn(socket.getPeerCertificate(true), token.caHash);
      socket.destroy();
      if (found) resolve(found);
      else reject(otherAuthority(address));
    });
    const fail = (why: string, cause?: unknown) => {
      socket.destroy();
      const remedy = 'see that the control plane runs, and that --enrol names its enrolment port (7401)';
      reject(new Fault('unavailable', `cannot reach the control plane at ${address}: ${why}`, { cause, remedy }));
    };
    socket.on('error', (error) => fail(error.message, error));
    socket.on('timeout', () => fail('no answer within 5 s'));
  });
}

function authorityIn(leaf: DetailedPeerCertificate, hash: string): string | undefined {
  const seen = new Set<DetailedPeerCertificate>();
  for (let one: DetailedPeerCertificate | undefined = leaf; one?.raw && !seen.has(one); one = one.issuerCertificate) {
    seen.add(one);
    if (hashOf(one.raw) === hash) return new X509Certificate(one.raw).toString();
  }
  return undefined;
}
