/** The thread that does nothing but beat: neither bulk data nor a busy event loop of the agent can hold it up. */

import { parentPort, workerData } from 'node:worker_threads';
import * as grpc from '@grpc/grpc-js';
import type { TlsIdentity } from '#proto/certificates.ts';
import { AgentClient, type Beat, type BeatAck } from '#proto/gen/gantry/v1/agent.ts';
import { systemClock, type Timer } from '#proto/kernel/clock.ts';
import { assert } from '#proto/kernel/errors.ts';
import { ownConnection } from './grpc-transport.ts';
import { type HeartbeatTarget, loopPeriodMs, silenceMs } from './heartbeat.ts';
import { SentBeats } from './watchdog/lease.ts';
import { openLease } from './watchdog/lease-file.ts';

/** What the main thread says. */
export type HeartbeatOrder =
  | { readonly aim: HeartbeatTarget; readonly identity: TlsIdentity }
  | { readonly aim: undefined };

/** What the main thread gives it when it begins. */
export interface HeartbeatData {
  readonly loop: SharedArrayBuffer;
  /** Where the lease is kept, and of which boot of the machine. */
  readonly directory: string;
  readonly bootId: string;
}

assert(parentPort, 'this file is a worker thread');
const port = parentPort;
const { loop, directory, bootId } = workerData as HeartbeatData;
const lease = openLease(directory, bootId);
/** Of all sessions: a lease outlives the connection it came by. */
const beats = new SentBeats();
let sequence = 0;
/** One number that the main loop counts up each time it turns. */
const loopTurns = new Int32Array(loop);
const clock = systemClock;

// As in main.ts: grpc-js names the server by its IP address in TLS.
process.noDeprecation = true;

let stop: (() => void) | undefined;

port.on('message', (order: HeartbeatOrder) => {
  stop?.();
  stop = order.aim ? beat(order.aim, order.identity) : undefined;
});

function beat(target: HeartbeatTarget, identity: TlsIdentity): () => void {
  const credentials = grpc.credentials.createSsl(
    Buffer.from(identity.caPem),
    Buffer.from(identity.keyPem),
    Buffer.from(identity.certificatePem),
  );
  const client = new AgentClient(target.address, credentials, ownConnection);
  let call: grpc.ClientDuplexStream<Beat, BeatAck> | undefined;
  let ackedAt = clock.monotonic();
  let turns = -1;
  let turnedAt = clock.monotonic();
  let told = false;
  const open = () => {
    const next = client.heartbeat();
    call = next;
    next.on('data', (ack: BeatAck) => {
      ackedAt = clock.monotonic();
      lease.renew(beats.granted(ack.sequence, ack.leaseMs));
    });
    // The next beat opens another one.
    const lost = () => {
      if (call === next) call = undefined;
    };
    next.on('error', lost);
    next.on('end', lost);
    return next;
  };
  const turn = () => {
    timer = clock.after(target.periodMs, turn);
    const now = clock.monotonic();
    const counted = Atomics.load(loopTurns, 0);
    if (counted !== turns) turnedAt = now;
    turns = counted;
    const loopLagMs = Math.max(0, Math.round(now - turnedAt - loopPeriodMs));
    beats.sent(++sequence, clock.boottime());
    (call ?? open()).write({ sequence, session: target.session, loopLagMs });
    if (now - ackedAt > silenceMs && !told) {
      told = true;
      port.postMessage({ silent: target.session });
    }
  };
  let timer: Timer;
  turn();
  return () => {
    timer.cancel();
    call?.cancel();
    client.close();
  };
}
