/** A gRPC two-way call, from either end, as a MessageStream. */
import type * as grpc from '@grpc/grpc-js';
import type { Fault } from './kernel/errors.ts';
import { faultOf, statusOf } from './rpc.ts';
import type { MessageStream, StreamListener } from './stream.ts';

/** The caller's end. */
export function callerStream<In, Out>(call: grpc.ClientDuplexStream<Out, In>): MessageStream<In, Out> {
  return stream(call, { end: () => call.end(), fail: () => call.cancel() });
}

/** The server's end: its fault becomes the status of the call. */
export function serverSideStream<In, Out>(call: grpc.ServerDuplexStream<In, Out>): MessageStream<In, Out> {
  return stream(call, {
    end: () => call.end(),
    fail: (fault) => void call.emit('error', statusOf(fault)),
  });
}

/** The events and methods both kinds of call have. */
interface Duplex<In, Out> {
  on(event: 'data', listener: (message: In) => void): unknown;
  on(event: 'end' | 'drain' | 'cancelled', listener: () => void): unknown;
  on(event: 'error', listener: (error: Error) => void): unknown;
  write(message: Out): boolean;
  pause(): unknown;
  resume(): unknown;
}

function stream<In, Out>(
  call: Duplex<In, Out>,
  endings: { end(): void; fail(fault: Fault): void },
): MessageStream<In, Out> {
  let listener: StreamListener<In> | undefined;
  let closed = false;
  /** An end before anybody listened. */
  let early: { fault: Fault | undefined } | undefined;
  const finish = (fault?: Fault) => {
    if (closed) return;
    closed = true;
    if (listener) listener.closed(fault);
    else early = { fault };
  };
  call.on('end', () => finish());
  call.on('cancelled', () => finish());
  call.on('error', (error) => finish(faultOf(error)));
  call.on('drain', () => listener?.drain?.());
  return {
    listen(next) {
      const first = !listener;
      listener = next;
      if (early) next.closed(early.fault);
      // Only now: a call without this listener delivers nothing.
      else if (first) call.on('data', (message) => !closed && listener?.message(message));
    },
    send: (message) => closed || call.write(message),
    pause: () => void call.pause(),
    resume: () => void call.resume(),
    close(fault) {
      if (closed) return;
      closed = true;
      if (fault) endings.fail(fault);
      else endings.end();
    },
  };
}
