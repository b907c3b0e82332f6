/** The last events in memory, and whoever waits for the next: what each replica knows by itself. */
import { Queue } from '#proto/kernel/queue.ts';
import type { Event } from '#proto/model/cluster.ts';

/** A slow follower is cut off rather than held in memory for ever. */
const followerLimit = 10_000;

export interface Heard {
  readonly event: Event;
  /** It says what is otherwise than at that revision: what happened in between was not seen. */
  readonly since: number | undefined;
}

export class EventRing {
  readonly #heard: Heard[] = [];
  /** How many have been forgotten. */
  #forgotten = 0;
  #wholeSince: number;
  readonly #followers = new Set<Queue<Event>>();
  readonly #waiting: (() => void)[] = [];
  readonly #capacity: number;

  /** `revision`: what happens from there on it is told of. */
  constructor(capacity: number, revision: number) {
    this.#capacity = capacity;
    this.#wholeSince = revision;
  }

  /** All that has happened after that revision is here. */
  get wholeSince(): number {
    return this.#wholeSince;
  }

  push(event: Event, since?: number): void {
    this.#heard.push({ event, since });
    // In bulk, so that each event costs the same.
    if (this.#heard.length >= this.#capacity * 2) this.#forget(this.#heard.length - this.#capacity);
    for (const follower of this.#followers) if (!follower.push(event)) this.#drop(follower);
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** Resolves with the next event. */
  grown(): Promise<void> {
    return new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Those that are kept, oldest first. */
  recent(): readonly Heard[] {
    return this.#heard.slice(-this.#capacity);
  }

  /** The place of the first after that revision. */
  placeAfter(revision: number): number {
    const index = this.#heard.findIndex(({ event }) => event.revision > revision);
    return this.#forgotten + (index < 0 ? this.#heard.length : index);
  }

  /** Up to `count` from that place on, which may be none yet; undefined: they are forgotten. */
  from(place: number, count: number): readonly Heard[] | undefined {
    const index = place - this.#forgotten;
    return index < 0 ? undefined : this.#heard.slice(index, index + count);
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
    for (const wake of this.#waiting.splice(0)) wake();
  }

  #forget(count: number): void {
    this.#wholeSince = this.#heard[count - 1]!.event.revision;
    this.#heard.splice(0, count);
    this.#forgotten += count;
  }

  #drop(follower: Queue<Event>): void {
    this.#followers.delete(follower);
    follower.end();
  }
}
