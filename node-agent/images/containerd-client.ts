/** containerd over its unix socket: the calls Gantry makes, as promises, in one namespace, with its errors as Faults. */
import * as grpc from '@grpc/grpc-js';
import { ContentClient } from '#proto/gen/containerd/content.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, faultCodeOf } from '#proto/kernel/errors.ts';
import type { UnaryMethod } from '#proto/rpc.ts';

/** Of containerd, in which everything of Gantry's lives. */
export const containerdNamespace = 'gantry';
export const snapshotter = 'overlayfs';

export interface Containerd {
  /** `lease`: what the call makes is kept while that lease lives. */
  call<Request, Response>(
    method: UnaryMethod<Request, Response>,
    request: Request,
    options?: CallOptions,
  ): Promise<Response>;
  /** Everything a server stream sends. */
  stream<Request, Response>(method: StreamMethod<Request, Response>, request: Request): AsyncIterable<Response>;
  /** For content's write, which is a stream both ways. */
  readonly content: ContentClient;
  metadata(lease?: string): grpc.Metadata;
  close(): void;
}

export interface CallOptions {
  readonly lease?: string | undefined;
  readonly timeoutMs?: number;
}

export interface StreamMethod<Request, Response> {
  readonly path: string;
  readonly requestStream: false;
  readonly responseStream: true;
  readonly requestSerialize: (request: Request) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => Response;
}

/** A client of the containerd that listens on `socket`; connects when it is used. */
export function containerdClient(socket: string, clock: Clock): Containerd {
  // No keepalive: containerd hangs up on whoever pings more often than every five minutes.
  const content = new ContentClient(`unix:${socket}`, grpc.credentials.createInsecure(), {
    'grpc.max_receive_message_length': 64 * 1024 * 1024,
    'grpc.default_authority': 'localhost',
    'grpc.initial_reconnect_backoff_ms': 50,
    'grpc.min_reconnect_backoff_ms': 50,
    'grpc.max_reconnect_backoff_ms': 500,
  });
  const metadata = (lease?: string) => {
    const metadata = new grpc.Metadata();
    metadata.set('containerd-namespace', containerdNamespace);
    if (lease) metadata.set('containerd-lease', lease);
    return metadata;
  };
  return {
    content,
    metadata,
    call: (method, request, { lease, timeoutMs = 30_000 } = {}) =>
      new Promise((resolve, reject) => {
        content.makeUnaryRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          request,
          metadata(lease),
          { deadline: clock.now() + timeoutMs },
          (error, response) => (error ? reject(containerdFault(error, socket)) : resolve(response!)),
        );
      }),
    async *stream(method, request) {
      const active = content.makeServerStreamRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        metadata(),
      );
      try {
        yield* active;
      } catch (error) {
        throw containerdFault(error, socket);
      } finally {
        active.cancel();
      }
    },
    close: () => content.close(),
  };
}

/** containerd's error as a Fault. It reports a full disk as UNKNOWN, told apart only by the kernel's own words in it. */
export function containerdFault(error: unknown, socket: string): Fault {
  if (error instanceof Fault) return error;
  const { code, details } = error as Partial<grpc.ServiceError>;
  const text = details ?? String(error);
  if (/no space left on device|disk quota exceeded/.test(text))
    return new Fault('exhausted', `the disk of containerd is full: ${text}`, {
      cause: error,
      remedy: 'free space on this node, or let fewer images be kept',
    });
  if (code === grpc.status.UNAVAILABLE && !/locked/.test(text))
    return new Fault('unavailable', `containerd at ${socket} is not reached: ${text}`, {
      cause: error,
      remedy: 'systemctl status containerd',
    });
  return new Fault(code === undefined ? 'internal' : faultCodeOf(code), `containerd: ${text}`, { cause: error });
}
