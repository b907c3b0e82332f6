/** One end of a two-way stream of messages: what session, relay and dispatch are written against, over gRPC or in memory. */
import type { Fault } from './kernel/errors.ts';

export interface StreamListener<In> {
  message(message: In): void;
  /** The stream takes more again, after a `send` that returned false. */
  drain?(): void;
  /** Called once: the other end or the network ended it; without a fault it ended as it should. Not called after our own `close`. */
  closed(fault?: Fault): void;
}

export interface MessageStream<In, Out> {
  /** Sets the one listener; what arrived before is delivered to it, later. */
  listen(listener: StreamListener<In>): void;
  /** False: taken, but the buffer is full; wait for `drain`. Sending on an ended stream does nothing and returns true. */
  send(message: Out): boolean;
  /** Stops delivery; the other end feels it as a stream that does not drain. */
  pause(): void;
  resume(): void;
  /** Ends it after what was sent; a fault is what the other end learns. */
  close(fault?: Fault): void;
}
