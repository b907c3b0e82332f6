/** `EventLog`: a ring in every replica, and the leader's events kept in the JetStream stream EVENTS where there is NATS. */
import { DeliverPolicy } from 'nats';
import { Event as WireEvent } from '#proto/gen/gantry/v1/types.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { Queue } from '#proto/kernel/queue.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import { retry } from '#proto/kernel/retry.ts';
import type { Event } from '#proto/model/cluster.ts';
import { toWire } from '#proto/model/wire.ts';
import { type Nats, natsFault } from '#proto/nats.ts';
import { consumeFrom, ensureStream, type StreamLimits } from '../nats-stream.ts';
import type { EventLog, EventQuery } from './event-log.ts';
import { EventRing } from './event-ring.ts';
import { eventsOf } from './events-of.ts';

export interface EventLogParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** Without it, events are only those that this replica has seen since its start. */
  readonly nats?: Nats | undefined;
  /** Only the leader's are kept: all replicas see the same. */
  readonly leads: () => boolean;
  readonly limits?: StreamLimits;
  /** Servers of NATS that keep each event; 1 unless told. */
  readonly copies?: number;
}

const streamName = 'EVENTS';
const defaultLimits: StreamLimits = { maxBytes: 256 * 2 ** 20, maxAgeMs: 30 * 24 * 3_600_000 };
const ringSize = 10_000;
/** Events that wait for NATS. */
const backlogLimit = 10_000;
const batchSize = 256;

/** Begins to listen when `record` is called. */
export function eventLog(parts: EventLogParts): EventLog {
  return new RingEventLog(parts);
}

interface Waiting {
  readonly event: Event;
  /** The same for the same change, whoever publishes it. */
  readonly messageId: string;
}

class RingEventLog implements EventLog {
  readonly #parts: EventLogParts;
  readonly #ring = new EventRing(ringSize);
  readonly #waiting = new Queue<Waiting>(backlogLimit);
  readonly #closing = new AbortController();
  #lost = 0;

  constructor(parts: EventLogParts) {
    this.#parts = parts;
    if (parts.nats)
      void this.#publishAll(parts.nats).catch((error) => parts.log.error('events are not kept any more', { error }));
  }

  readonly record: EventLog['record'] = (delta) => {
    const events = eventsOf(delta, this.#parts.clock.now());
    for (const event of events) this.#ring.push(event);
    if (!this.#parts.nats || !this.#parts.leads()) return;
    events.forEach((event, index) => {
      if (!this.#waiting.push({ event, messageId: `${delta.revision}-${index}` })) this.#lost++;
    });
  };

  note(said: Omit<Event, 'revision'>, revision: number): void {
    const event = { ...said, revision };
    this.#ring.push(event);
    if (!this.#parts.nats || !this.#parts.leads()) return;
    if (!this.#waiting.push({ event, messageId: `${revision}-${newId(this.#parts.random)}` })) this.#lost++;
  }

  async *read(query: EventQuery): AsyncGenerator<Event> {
    const { follow = false, sinceMs = 0, signal } = query;
    // Before the history is read, so that nothing falls between.
    const coming = follow ? this.#ring.follow(signal) : undefined;
    const told = new Set<string>();
    if (!follow || sinceMs > 0) {
      for await (const event of this.#kept(sinceMs, signal)) {
        told.add(keyOf(event));
        yield event;
      }
      for (const event of this.#ring.recent()) {
        if (event.atMs < sinceMs || told.has(keyOf(event))) continue;
        told.add(keyOf(event));
        yield event;
      }
    }
    if (!coming) return;
    for await (const event of coming) if (!told.delete(keyOf(event))) yield event;
  }

  async close(): Promise<void> {
    this.#closing.abort(new Fault('cancelled', 'the event log closes'));
    this.#waiting.end();
    this.#ring.close();
  }

  /** What NATS keeps; nothing while it is not reached: then the ring has to do. */
  async *#kept(sinceMs: number, signal: AbortSignal | undefined): AsyncGenerator<Event> {
    if (!this.#parts.nats?.connected) return;
    const start =
      sinceMs > 0 ? { deliver_policy: DeliverPolicy.StartTime, opt_start_time: new Date(sinceMs).toISOString() } : {};
    const { clock } = this.#parts;
    const backlog = await consumeFrom(this.#parts.nats.connection(), streamName, 'events.>', start, {
      follow: false,
      clock,
      signal,
    }).catch((error) => {
      this.#parts.log.debug('events are read from memory', { error: natsFault(error, 'events') });
      return undefined;
    });
    if (!backlog) return;
    try {
      for await (const message of backlog.history()) {
        const event = WireEvent.decode(message.data);
        if (event.atMs >= sinceMs) yield event as Event;
      }
    } finally {
      backlog.stop();
    }
  }

  async #publishAll(nats: Nats): Promise<void> {
    const { signal } = this.#closing;
    let made = false;
    const publish = async (batch: readonly Waiting[]) => {
      const connection = nats.connection();
      const { limits = defaultLimits, copies } = this.#parts;
      if (!made) await ensureStream(connection, streamName, ['events.>'], limits, copies);
      made = true;
      const stream = connection.jetstream();
      await Promise.all(
        batch.map(({ event, messageId }) =>
          stream.publish(`events.${event.kind}`, WireEvent.encode(toWire<Event>(event)).finish(), {
            msgID: messageId,
            timeout: 5_000,
          }),
        ),
      );
    };
    for await (const first of this.#waiting) {
      const batch = [first];
      if (this.#waiting.size > 0) batch.push(...this.#waiting.drain());
      for (let at = 0; at < batch.length; at += batchSize) {
        const part = batch.slice(at, at + batchSize);
        await retry(
          { ...this.#parts, signal },
          { initialMs: 100, maxMs: 2_000 },
          () =>
            publish(part).catch((error) => {
              // NATS may have lost its disk.
              made = false;
              throw error;
            }),
          () => !signal.aborted,
        ).catch((error) => {
          if (!signal.aborted) throw error;
        });
        if (signal.aborted) return;
      }
      if (this.#lost > 0)
        this.#parts.log.warn('events were not kept: NATS was away for too long', { count: this.#lost });
      this.#lost = 0;
    }
  }
}

function keyOf(event: Event): string {
  // What is no step of the snapshot may be said twice at one revision.
  const when = event.action === 'repaired' ? event.atMs : '';
  return `${event.revision} ${event.kind} ${event.id} ${event.action} ${when}`;
}
