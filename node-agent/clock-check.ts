/** Asks the control plane for its time, before anything of it is trusted: a clock that is off makes certificates look ended, or not begun, and TLS does not say which clock it is. */
import * as grpc from '@grpc/grpc-js';
import { EnrolmentClient, EnrolmentService } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { type ClockSeen, clockComplaint } from '#proto/model/wall-clock.ts';
import { call, ownConnection } from '#proto/rpc.ts';

const answerMs = 2_000;

/** What is wrong with whose clock, in words, and what to do; undefined: nothing, or nobody answers. `addresses`: the replicas' enrolment ports. */
export async function whyClock(addresses: readonly string[], clock: Clock): Promise<string | undefined> {
  const seen = await Promise.all(addresses.map((address) => timeOf(address, clock)));
  const complaint = clockComplaint(seen.filter((one) => one !== undefined));
  return complaint && `${complaint} (compare \`date -u\`; systemd-timesyncd or chrony sets it right)`;
}

async function timeOf(address: string, clock: Clock): Promise<ClockSeen | undefined> {
  // Not verified on purpose: by a clock that is off nothing can be. What it says is shown, and believed by nobody.
  const anybody = grpc.credentials.createSsl(null, null, null, {
    rejectUnauthorized: false,
    checkServerIdentity: () => undefined,
  });
  const client = new EnrolmentClient(address, anybody, ownConnection);
  try {
    const askedAtMs = clock.monotonic();
    const { atMs } = await call(client, EnrolmentService.time, {}, { timeoutMs: answerMs });
    const tookMs = clock.monotonic() - askedAtMs;
    return { name: address.slice(0, address.lastIndexOf(':')), aheadMs: atMs + tookMs / 2 - clock.now() };
  } catch (error) {
    if (!isFault(error)) throw error;
    return undefined;
  } finally {
    client.close();
  }
}
