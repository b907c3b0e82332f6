/** How much one task, and all together, may ask of the name server: one that floods it takes no names from the others. */
import type { Clock } from '#proto/kernel/clock.ts';

/** A bucket of queries for each asker: filled by so many a second, and holding as many as one second gives. */
const queriesPerSecond = 2_000;
const mostForwards = { all: 512, each: 64 };
const mostConnections = { all: 512, each: 64 };

export class Limits {
  readonly #clock: Clock;
  readonly #buckets = new Map<string, { left: number; atMs: number }>();
  readonly #forwards = new Count(mostForwards);
  readonly #connections = new Count(mostConnections);

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** False for a query too many, which is to be dropped: the asker's resolver tries again. */
  admits(source: string): boolean {
    const atMs = this.#clock.monotonic();
    const bucket = this.#buckets.get(source) ?? { left: queriesPerSecond, atMs };
    // Who was silent for long has a full one: nothing need be remembered of him.
    if (this.#buckets.size > 4096) this.#buckets.clear();
    this.#buckets.set(source, bucket);
    bucket.left = Math.min(queriesPerSecond, bucket.left + ((atMs - bucket.atMs) * queriesPerSecond) / 1000);
    bucket.atMs = atMs;
    if (bucket.left < 1) return false;
    bucket.left--;
    return true;
  }

  /** A query goes upstream: what to call when it is answered; undefined for one too many. */
  forward(source: string): (() => void) | undefined {
    return this.#forwards.enter(source);
  }

  /** A connection begins: what to call when it ends; undefined for one too many. */
  enter(source: string): (() => void) | undefined {
    return this.#connections.enter(source);
  }
}

class Count {
  readonly #most: { readonly all: number; readonly each: number };
  readonly #each = new Map<string, number>();
  #all = 0;

  constructor(most: { readonly all: number; readonly each: number }) {
    this.#most = most;
  }

  enter(source: string): (() => void) | undefined {
    const own = this.#each.get(source) ?? 0;
    if (this.#all >= this.#most.all || own >= this.#most.each) return undefined;
    this.#all++;
    this.#each.set(source, own + 1);
    return () => {
      this.#all--;
      const left = (this.#each.get(source) ?? 1) - 1;
      if (left > 0) this.#each.set(source, left);
      else this.#each.delete(source);
    };
  }
}
