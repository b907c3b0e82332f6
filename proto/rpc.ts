/** The thin layer over grpc-js that both halves use: calls as promises, faults as statuses. */
import * as grpc from '@grpc/grpc-js';
import { systemClock } from './kernel/clock.ts';
import { describe, Fault, type FaultCode, faultCodeOf, grpcCodeOf } from './kernel/errors.ts';

/** Options every channel of ours has: no 4 MiB limit, fast redial, a dead peer noticed. */
export const channelOptions: grpc.ChannelOptions = {
  'grpc.max_receive_message_length': 64 * 1024 * 1024,
  'grpc.max_send_message_length': 64 * 1024 * 1024,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 300,
  'grpc.keepalive_time_ms': 5_000,
  'grpc.keepalive_timeout_ms': 3_000,
};

/**
 * Where beats tell whether the other end lives, long before this does. Timers run before sockets are read: who stood still for the usual three
 * seconds would take for dead who answered long ago, and a leader would hang up on a thousand agents at once, or they on it.
 */
const unhurried: grpc.ChannelOptions = { ...channelOptions, 'grpc.keepalive_timeout_ms': 10_000 };

export const serverOptions = unhurried;

/** Options of an agent's channel that never shares its TCP connection: the default pool would hand a new dial the dead one. */
export const ownConnection: grpc.ChannelOptions = { ...unhurried, 'grpc.use_local_subchannel_pool': 1 };

/** What a method's definition tells: how to call it without its generated overloads. */
export interface UnaryMethod<Request, Response> {
  readonly path: string;
  readonly requestStream: false;
  readonly responseStream: false;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

/** Trailing metadata of an answer that may be out of date: the instant (ms) up to which who answers knows what was decided. */
const asOfKey = 'gantry-as-of-ms';

/** For the answer of who may not know all that was decided since `ms`; undefined: nothing to say. */
export function asOf(ms: number | undefined): grpc.Metadata | undefined {
  if (ms === undefined) return undefined;
  const metadata = new grpc.Metadata();
  metadata.set(asOfKey, String(Math.floor(ms)));
  return metadata;
}

/** One unary call. Rejects with a Fault. `timeoutMs` 10 s unless told; `outdated` hears of an answer that may be, and as of when (ms) it holds. */
export function call<Request, Response>(
  client: grpc.Client,
  method: UnaryMethod<Request, Response>,
  request: Request,
  options: {
    readonly timeoutMs?: number;
    readonly signal?: AbortSignal;
    readonly outdated?: (asOfMs: number) => void;
  } = {},
): Promise<Response> {
  return new Promise((resolve, reject) => {
    const active = client.makeUnaryRequest(
      method.path,
      method.requestSerialize,
      method.responseDeserialize,
      request,
      new grpc.Metadata(),
      { deadline: systemClock.now() + (options.timeoutMs ?? 10_000) },
      (error, response) => {
        options.signal?.removeEventListener('abort', abort);
        if (error) reject(faultOf(error));
        else resolve(response as Response);
      },
    );
    const abort = () => active.cancel();
    options.signal?.addEventListener('abort', abort, { once: true });
    active.on('status', ({ metadata }: grpc.StatusObject) => {
      const [ms] = metadata.get(asOfKey);
      if (ms !== undefined) options.outdated?.(Number(ms));
    });
  });
}

/** The Fault that a gRPC error carries. */
export function faultOf(error: unknown): Fault {
  if (error instanceof Fault) return error;
  const status = error as Partial<grpc.ServiceError>;
  if (typeof status.code !== 'number') return new Fault('internal', describe(error), { cause: error });
  const named = status.metadata?.get('gantry-fault')[0];
  const remedy = status.metadata?.get('gantry-remedy-bin')[0];
  return new Fault((named as FaultCode | undefined) ?? faultCodeOf(status.code), status.details || describe(error), {
    cause: error,
    ...(remedy === undefined ? {} : { remedy: remedy.toString() }),
  });
}

/** The gRPC error that carries a Fault; anything else is `internal`. */
export function statusOf(error: unknown): Partial<grpc.StatusObject> & { code: grpc.status; details: string } {
  const fault = error instanceof Fault ? error : new Fault('internal', describe(error));
  const metadata = new grpc.Metadata();
  metadata.set('gantry-fault', fault.code);
  if (fault.remedy) metadata.set('gantry-remedy-bin', Buffer.from(fault.remedy));
  return { code: grpcCodeOf(fault.code), details: fault.message, metadata };
}

/** A unary handler from an async function; `trailer`: what goes with its answers. */
export function unary<Request, Response>(
  handler: (request: Request, call: grpc.ServerUnaryCall<Request, Response>) => Promise<Response>,
  trailer?: () => grpc.Metadata | undefined,
): grpc.handleUnaryCall<Request, Response> {
  return (active, callback) => {
    handler(active.request, active).then(
      (response) => callback(null, response, trailer?.()),
      (error) => callback(statusOf(error)),
    );
  };
}

/** A server-streaming handler from an async iterable; ends it when the caller goes away, waits where the caller is slow. */
export function serverStream<Request, Response>(
  handler: (
    request: Request,
    signal: AbortSignal,
    call: grpc.ServerWritableStream<Request, Response>,
  ) => AsyncIterable<Response>,
): grpc.handleServerStreamingCall<Request, Response> {
  return (active) => {
    const controller = new AbortController();
    active.on('cancelled', () => controller.abort(new Fault('cancelled', 'the caller went away')));
    void (async () => {
      try {
        for await (const message of handler(active.request, controller.signal, active)) {
          if (controller.signal.aborted) return;
          if (!active.write(message)) await drained(active, controller.signal);
        }
        active.end();
      } catch (error) {
        if (!controller.signal.aborted) active.emit('error', statusOf(error));
      }
    })();
  };
}

function drained(stream: NodeJS.EventEmitter, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      stream.off('drain', done);
      signal.removeEventListener('abort', done);
      resolve();
    };
    stream.once('drain', done);
    signal.addEventListener('abort', done, { once: true });
  });
}
