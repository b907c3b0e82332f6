/** `EventLog`: a ring in every replica, whose events the leader keeps in a stream where there is one. */
import type { Clock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { Scope } from '#proto/kernel/scope.ts';
import type { Event } from '#proto/model/cluster.ts';
import type { Delta } from '../store/records.ts';
import type { Store } from '../store/store.ts';
import type { EventLog, EventQuery } from './event-log.ts';
import { EventRing } from './event-ring.ts';
import type { EventStream } from './event-stream.ts';
import { eventsOf } from './events-of.ts';
import { idOf, publish, whatOf } from './publish.ts';

export interface EventLogParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly store: Pick<Store, 'snapshot' | 'subscribe' | 'past'>;
  /** Without it, events are only those that this replica has seen since its start. */
  readonly stream?: EventStream | undefined;
}

const ringSize = 10_000;

/** Hears what the store tells from now on. */
export function eventLog(parts: EventLogParts): EventLog {
  return new RingEventLog(parts);
}

class RingEventLog implements EventLog {
  readonly #parts: EventLogParts;
  readonly #ring: EventRing;
  readonly #unsubscribe: () => void;

  constructor(parts: EventLogParts) {
    this.#parts = parts;
    this.#ring = new EventRing(ringSize, parts.store.snapshot.revision);
    this.#unsubscribe = parts.store.subscribe((delta) => this.#record(delta));
  }

  note(said: Omit<Event, 'revision'>): void {
    this.#ring.push({ ...said, revision: this.#parts.store.snapshot.revision });
  }

  lead(term: Scope): void {
    const { stream, log } = this.#parts;
    if (stream)
      publish({ ...this.#parts, stream, ring: this.#ring }, term.signal).catch((error) =>
        log.error('events are not kept any more', { error }),
      );
  }

  async *read(query: EventQuery): AsyncGenerator<Event> {
    const { follow = false, sinceMs = 0, signal } = query;
    // Before the history is read, so that nothing falls between.
    const coming = follow ? this.#ring.follow(signal) : undefined;
    const told = new Set<string>();
    if (!follow || sinceMs > 0) {
      const said = new Map<string, number>();
      for await (const event of this.#kept(sinceMs, signal)) {
        said.set(whatOf(event), event.revision);
        if (isFirst(told, event)) yield event;
      }
      for (const { event, since } of this.#ring.recent()) {
        if (event.atMs < sinceMs || (since !== undefined && (said.get(whatOf(event)) ?? 0) > since)) continue;
        if (isFirst(told, event)) yield event;
      }
    }
    if (!coming) return;
    for await (const event of coming) if (!told.delete(idOf(event))) yield event;
  }

  async close(): Promise<void> {
    this.#unsubscribe();
    this.#ring.close();
  }

  #record(delta: Delta): void {
    for (const event of eventsOf(delta, this.#parts.clock.now())) this.#ring.push(event, delta.since);
  }

  /** What the stream keeps; nothing while it is not reached: then the ring has to do. */
  async *#kept(sinceMs: number, signal: AbortSignal | undefined): AsyncGenerator<Event> {
    const { stream, log } = this.#parts;
    if (!stream) return;
    try {
      yield* stream.since(sinceMs, signal);
    } catch (error) {
      if (!isFault(error)) throw error;
      log.debug('events are read from memory', { error });
    }
  }
}

function isFirst(told: Set<string>, event: Event): boolean {
  const id = idOf(event);
  if (told.has(id)) return false;
  told.add(id);
  return true;
}
