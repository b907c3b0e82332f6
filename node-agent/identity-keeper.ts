/** Keeps this node's certificate good: renewed in time, and at once where the cluster has a new CA. */
import { X509Certificate } from 'node:crypto';
import { certificatesIn, isIssuedBy } from '#proto/certificates.ts';
import type { EnrolResponse } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type BackoffPolicy, backoffMs } from '#proto/kernel/retry.ts';
import { certificateRequest } from './certificate-request.ts';
import { type NodeIdentity, storeIdentity } from './identity.ts';

export interface IdentityKeeperParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The agent's data directory. */
  readonly data: string;
  /** Asks the control plane for the next certificate. */
  readonly renew: (csrPem: string) => Promise<EnrolResponse>;
  /** `identity` is another one: the next connections are made with it. */
  readonly swapped: () => void;
}

/** A timer holds 24 days at most, and wall clocks jump: look again at least this often. */
const longestWaitMs = 6 * 3_600_000;
const renewBackoff: BackoffPolicy = { initialMs: 1_000, maxMs: 600_000 };
/** All nodes of a cluster hear of a new CA in one moment. */
const spreadMs = 3_000;

export class IdentityKeeper {
  readonly #parts: IdentityKeeperParts;
  readonly #stop = new AbortController();
  #identity: NodeIdentity;
  /** Wall clock, ms. */
  #dueMs: number;
  #wake: AbortController = new AbortController();
  #stored: Promise<void> = Promise.resolve();
  /** What the control plane said last that it trusts, PEM; undefined: it has not said it to this run. */
  #told: string | undefined;

  constructor(parts: IdentityKeeperParts, first: NodeIdentity) {
    this.#parts = parts;
    this.#identity = first;
    this.#dueMs = renewalAt(first.certificatePem, parts.random);
    void this.#run();
  }

  get identity(): NodeIdentity {
    return this.#identity;
  }

  close(): void {
    this.#stop.abort();
    this.#wake.abort();
  }

  /** The control plane trusts these roots, PEM, of which the first issues: so does this node, and gets a certificate of that. */
  trust(caPem: string): void {
    const roots = certificatesIn(caPem);
    if (roots.length > 0) this.#told = caPem;
    if (roots.length === 0 || (caPem === this.#identity.caPem && isIssuedBy(this.#identity.certificatePem, roots[0]!)))
      return;
    if (caPem !== this.#identity.caPem) this.#take({ ...this.#identity, caPem });
    if (isIssuedBy(this.#identity.certificatePem, roots[0]!)) return;
    const { clock, random } = this.#parts;
    this.#dueMs = Math.min(this.#dueMs, clock.now() + random.int(spreadMs));
    this.#wake.abort();
  }

  #take(identity: NodeIdentity): Promise<void> {
    const { data, log, swapped } = this.#parts;
    this.#identity = identity;
    this.#stored = this.#stored
      .then(() => storeIdentity(data, identity))
      .catch((error) => log.error('the identity of this node is not on disk', { error }));
    return this.#stored.then(() => {
      if (!this.#stop.signal.aborted) swapped();
    });
  }

  async #run(): Promise<void> {
    const { clock, random, log, renew } = this.#parts;
    for (let failures = 0; !this.#stop.signal.aborted; ) {
      const waitMs = failures > 0 ? backoffMs(renewBackoff, failures, random) : this.#dueMs - clock.now();
      this.#wake = new AbortController();
      if (this.#stop.signal.aborted) return;
      if (waitMs > 0) await clock.sleep(Math.min(waitMs, longestWaitMs), this.#wake.signal).catch(() => {});
      if (this.#stop.signal.aborted) return;
      if (clock.now() < this.#dueMs) continue;
      try {
        const { nodeId } = this.#identity;
        const request = await certificateRequest(nodeId);
        const { certificatePem, caPem } = await renew(request.csrPem);
        const newest = this.#told && certificatesIn(this.#told)[0];
        if (newest && !isIssuedBy(certificatePem, newest))
          throw new Fault('unavailable', 'the replica that was asked still issues by another CA');
        this.#dueMs = renewalAt(certificatePem, random);
        failures = 0;
        await this.#take({ nodeId, keyPem: request.keyPem, certificatePem, caPem });
        log.info('certificate renewed', { node: nodeId });
      } catch (error) {
        failures++;
        log.warn('certificate not renewed, trying again', { error, attempt: failures });
      }
    }
  }
}

/** When a certificate is to be renewed (ms since the epoch): at a random moment from half to four fifths of its life. */
export function renewalAt(certificatePem: string, random: Random): number {
  const { validFrom, validTo } = new X509Certificate(certificatePem);
  const from = Date.parse(validFrom);
  const life = Date.parse(validTo) - from;
  return from + life / 2 + random.int(Math.max(1, Math.floor(life * 0.3)));
}
