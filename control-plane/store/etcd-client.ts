/** The one door to etcd: clients tuned so that a dead or frozen member is noticed, and errors translated to faults. */

import * as cockatiel from 'cockatiel';
import { isBrokenCircuitError } from 'cockatiel';
import * as etcd3 from 'etcd3';
import { describe, Fault } from '#proto/kernel/errors.ts';

/** PEM. */
export interface EtcdTls {
  readonly ca: Buffer;
  readonly cert: Buffer;
  readonly key: Buffer;
}

export interface EtcdAddress {
  /** `http://HOST:PORT` or, with `tls`, `https://HOST:PORT`; one for each member. */
  readonly hosts: readonly string[];
  /** Asked at each call: who gives another object has it used from then on. */
  readonly tls?: () => EtcdTls;
  /** Longest wait for the answer to one unary call; 3,000 unless told. */
  readonly callTimeoutMs?: number;
}

export interface EtcdClient {
  readonly kv: etcd3.KVClient;
  readonly watch: etcd3.WatchClient;
  close(): void;
}

/**
 * Two connections: a failed unary call resets its own, and must not take the watch with it.
 * Nothing is retried in here: etcd3 would repeat a transaction that had already been committed.
 * `now`: wall clock ms, which is what gRPC counts deadlines in.
 */
export function openEtcd(address: EtcdAddress, now: () => number): EtcdClient {
  const build = (tls: EtcdTls | undefined) =>
    new etcd3.Etcd3({
      hosts: [...address.hosts],
      ...(tls && {
        credentials: {
          rootCertificate: tls.ca,
          certChain: tls.cert,
          privateKey: tls.key,
        },
      }),
      grpcOptions: {
        'grpc.max_receive_message_length': -1,
        'grpc.max_send_message_length': -1,
        'grpc.initial_reconnect_backoff_ms': 100,
        'grpc.max_reconnect_backoff_ms': 1_000,
        // etcd hangs up on who pings more often than every 5 s (its --grpc-keepalive-min-time).
        'grpc.keepalive_time_ms': 6_000,
        'grpc.keepalive_timeout_ms': 1_000,
        'grpc.keepalive_permit_without_calls': 1,
      },
      defaultCallOptions: (call) => (call.isStream ? {} : { deadline: now() + (address.callTimeoutMs ?? 3_000) }),
      faultHandling: {
        global: cockatiel.noop,
        // With several members the breaker is what makes the client leave a dead one; with one it would only add a wait.
        host: () =>
          address.hosts.length === 1
            ? cockatiel.noop
            : cockatiel.circuitBreaker(
                cockatiel.handleWhen((error) => error instanceof etcd3.GRPCUnavailableError),
                { halfOpenAfter: 500, breaker: new cockatiel.ConsecutiveBreaker(3) },
              ),
      },
    });
  const pair = (tls: EtcdTls | undefined) => ({ tls, unary: build(tls), streams: build(tls) });
  const close = ({ unary, streams }: ReturnType<typeof pair>) => {
    unary.close();
    streams.close();
  };
  let held = pair(address.tls?.());
  const current = () => {
    const tls = address.tls?.();
    if (tls !== held.tls) {
      // Calls and streams that are open go on to their end.
      close(held);
      held = pair(tls);
    }
    return held;
  };
  return {
    get kv() {
      return current().unary.kv;
    },
    get watch() {
      return current().streams.watchClient;
    },
    close: () => close(held),
  };
}

/** The fault that an error of etcd3 stands for; `timeout` and `unavailable` leave the outcome of a write unknown. */
export function etcdFault(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const options = { cause: error };
  if (error instanceof etcd3.GRPCDeadlineExceededError) return new Fault('timeout', 'etcd did not answer', options);
  if (error instanceof etcd3.GRPCResourceExhastedError || error instanceof etcd3.GRPCInvalidArgumentError)
    return new Fault('exhausted', `etcd refused the request: ${describe(error)}`, {
      cause: error,
      remedy:
        'start etcd with --max-txn-ops 8192 --max-request-bytes 9437184; when its quota is full, compact and defragment it',
    });
  if (error instanceof etcd3.GRPCOutOfRangeError) return new Fault('precondition', describe(error), options);
  if (
    error instanceof etcd3.GRPCUnauthenticatedError ||
    error instanceof etcd3.EtcdPermissionDeniedError ||
    error instanceof etcd3.EtcdAuthenticationFailedError
  )
    return new Fault('unauthenticated', `etcd refused our identity: ${describe(error)}`, options);
  if (
    error instanceof etcd3.GRPCGenericError ||
    error instanceof etcd3.EtcdError ||
    error instanceof etcd3.ClientClosedError ||
    isBrokenCircuitError(error) ||
    // Streams pass on what grpc-js says, untranslated.
    typeof (error as { code?: unknown }).code === 'number'
  )
    return new Fault('unavailable', `etcd is not reachable: ${describe(error)}`, options);
  throw error;
}
