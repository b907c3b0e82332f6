/** A stream of events in memory, for tests and simulation: shared by any number of replicas, and breakable on purpose. */
import type { EventStream, KeptEvent } from '#control-plane/events/event-stream.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Event } from '#proto/model/cluster.ts';

/** As JetStream is told to remember ids. */
const duplicatesMs = 120_000;

export class MemoryEventStream implements EventStream {
  readonly kept: KeptEvent[] = [];
  /** From the call to its answer. */
  answerMs = 0;
  /** Nothing of it is reached. */
  away = false;
  /** Of so many events, one is not kept, though the others of its batch are; 0: all are. */
  oneInLost = 0;
  /** They are kept, and nobody is told so. */
  mute = false;
  readonly #clock: Clock;
  #seen = new Map<string, number>();
  #told = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Its disk is lost. */
  lose(): void {
    this.kept.length = 0;
    this.#seen.clear();
  }

  async keep(events: readonly KeptEvent[]): Promise<void> {
    await this.#turn();
    const now = this.#clock.monotonic();
    let lost = false;
    for (const kept of events) {
      const isLost = this.oneInLost > 0 && ++this.#told % this.oneInLost === 0;
      lost ||= isLost;
      const seenAtMs = this.#seen.get(kept.id);
      if (isLost || (seenAtMs !== undefined && now - seenAtMs < duplicatesMs)) continue;
      this.#seen.set(kept.id, now);
      this.kept.push(kept);
    }
    if (lost || this.mute) throw new Fault('unavailable', 'events: NATS did not answer in time');
    await this.#turn();
  }

  async last(count: number): Promise<readonly KeptEvent[]> {
    await this.#turn();
    return this.kept.slice(-count);
  }

  async *since(sinceMs: number): AsyncGenerator<Event> {
    await this.#turn();
    for (const { event } of [...this.kept]) if (event.atMs >= sinceMs) yield event;
  }

  async #turn(): Promise<void> {
    await this.#clock.sleep(this.answerMs / 2);
    if (this.away) throw new Fault('unavailable', 'events: NATS is not reached');
  }
}
