/** `EventStream` in the JetStream stream EVENTS, `events.<kind>`. */
import { DeliverPolicy, headers, type JsMsg, type NatsConnection } from 'nats';
import { Event as WireEvent } from '#proto/gen/gantry/v1/types.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Event } from '#proto/model/cluster.ts';
import { toWire } from '#proto/model/wire.ts';
import { type Nats, natsFault } from '#proto/nats.ts';
import { consumeFrom, ensureStream, type StreamLimits } from '../nats-stream.ts';
import { type EventStream, eventsKeptMs, type KeptEvent } from './event-stream.ts';

export interface NatsEventStreamParts {
  readonly nats: Nats;
  readonly clock: Clock;
  readonly limits?: StreamLimits;
  /** Servers of NATS that keep each event; 1 unless told. */
  readonly copies?: number;
}

const streamName = 'EVENTS';
const subjects = ['events.>'];
const defaultLimits: StreamLimits = { maxBytes: 256 * 2 ** 20, maxAgeMs: eventsKeptMs };
const idHeader = 'Nats-Msg-Id';
const wholeHeader = 'Gantry-Whole';

/** Makes the stream when something is to be kept, and again where NATS has lost it. */
export function natsEventStream(parts: NatsEventStreamParts): EventStream {
  return new NatsEventStream(parts);
}

class NatsEventStream implements EventStream {
  readonly #parts: NatsEventStreamParts;
  #made = false;

  constructor(parts: NatsEventStreamParts) {
    this.#parts = parts;
  }

  async keep(events: readonly KeptEvent[]): Promise<void> {
    try {
      const stream = (await this.#ready()).jetstream();
      await Promise.all(
        events.map(({ id, whole, event }) => {
          const more = headers();
          more.set(wholeHeader, String(whole));
          const bytes = WireEvent.encode(toWire<Event>(event)).finish();
          return stream.publish(`events.${event.kind}`, bytes, { msgID: id, headers: more, timeout: 5_000 });
        }),
      );
    } catch (error) {
      // NATS may have lost its disk.
      this.#made = false;
      throw natsFault(error, 'events');
    }
  }

  async last(count: number): Promise<readonly KeptEvent[]> {
    try {
      const connection = await this.#ready();
      const { state } = await (await connection.jetstreamManager()).streams.info(streamName);
      if (state.messages === 0) return [];
      const from = Math.max(state.first_seq, state.last_seq - count + 1);
      const start = { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: from };
      const kept: KeptEvent[] = [];
      for await (const message of this.#history(connection, start, undefined))
        kept.push({
          id: message.headers?.get(idHeader) ?? '',
          whole: Number(message.headers?.get(wholeHeader) || 0),
          event: eventIn(message),
        });
      return kept;
    } catch (error) {
      this.#made = false;
      throw natsFault(error, 'events');
    }
  }

  async *since(sinceMs: number, signal?: AbortSignal): AsyncGenerator<Event> {
    const start =
      sinceMs > 0 ? { deliver_policy: DeliverPolicy.StartTime, opt_start_time: new Date(sinceMs).toISOString() } : {};
    try {
      for await (const message of this.#history(this.#parts.nats.connection(), start, signal)) {
        const event = eventIn(message);
        if (event.atMs >= sinceMs) yield event;
      }
    } catch (error) {
      throw natsFault(error, 'events');
    }
  }

  async #ready(): Promise<NatsConnection> {
    const { nats, limits = defaultLimits, copies } = this.#parts;
    const connection = nats.connection();
    if (!this.#made) await ensureStream(connection, streamName, subjects, limits, copies);
    this.#made = true;
    return connection;
  }

  async *#history(
    connection: NatsConnection,
    start: Parameters<typeof consumeFrom>[3],
    signal: AbortSignal | undefined,
  ): AsyncGenerator<JsMsg> {
    const { clock } = this.#parts;
    const backlog = await consumeFrom(connection, streamName, subjects[0]!, start, { follow: false, clock, signal });
    try {
      yield* backlog.history();
    } finally {
      backlog.stop();
    }
  }
}

function eventIn(message: JsMsg): Event {
  return WireEvent.decode(message.data) as Event;
}
