/** The last events in memory, and whoever waits for the next: what each replica knows without NATS. */
import { Queue } from '#proto/kernel/queue.ts';
import type { Event } from '#proto/model/cluster.ts';

/** A slow follower is cut off rather than held in memory for ever. */
const followerLimit = 10_000;

export class EventRing {
  readonly #events: Event[] = [];
  readonly #followers = new Set<Queue<Event>>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  push(event: Event): void {
    this.#events.push(event);
    // In bulk, so that each event costs the same.
    if (this.#events.length >= this.#capacity * 2) this.#events.splice(0, this.#events.length - this.#capacity);
    for (const follower of this.#followers) if (!follower.push(event)) this.#drop(follower);
  }

  /** Those that are kept, oldest first. */
  recent(): readonly Event[] {
    return this.#events.slice(-this.#capacity);
  }

  /** What comes from now on; ends when the signal aborts, or when its reader is too slow. */
  follow(signal: AbortSignal | undefined): AsyncIterable<Event> {
    const queue = new Queue<Event>(followerLimit);
    this.#followers.add(queue);
    const end = () => this.#drop(queue);
    if (signal?.aborted) end();
    signal?.addEventListener('abort', end, { once: true });
    return queue;
  }

  close(): void {
    for (const follower of this.#followers) this.#drop(follower);
  }

  #drop(follower: Queue<Event>): void {
    this.#followers.delete(follower);
    follower.end();
  }
}
