/** Alarms by key with one timer behind them: who asked to be looked at again, and when. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';

/** The wall clock may be set, and timers count no more than 24 days: it is asked again at least this often. */
const mostWaitMs = 600_000;

export class Wakes<Key> {
  readonly #clock: Clock;
  readonly #wake: (key: Key) => void;
  readonly #at = new Map<Key, number>();
  #timer: Timer | undefined;
  #timerAtMs = Number.POSITIVE_INFINITY;

  constructor(clock: Clock, wake: (key: Key) => void) {
    this.#clock = clock;
    this.#wake = wake;
  }

  /** One alarm for each key, at `atMs` of the wall clock; Infinity: none. */
  set(key: Key, atMs: number): void {
    if (atMs === Number.POSITIVE_INFINITY) {
      this.#at.delete(key);
      return;
    }
    this.#at.set(key, atMs);
    if (atMs < this.#timerAtMs) this.#arm(atMs);
  }

  cancel(key: Key): void {
    this.#at.delete(key);
  }

  clear(): void {
    this.#at.clear();
    this.#timer?.cancel();
    this.#timerAtMs = Number.POSITIVE_INFINITY;
  }

  #arm(atMs: number): void {
    this.#timer?.cancel();
    this.#timerAtMs = atMs;
    const waitMs = Math.min(mostWaitMs, Math.max(1, atMs - this.#clock.now()));
    this.#timer = this.#clock.after(waitMs, () => this.#ring());
  }

  #ring(): void {
    const now = this.#clock.now();
    this.#timerAtMs = Number.POSITIVE_INFINITY;
    let next = Number.POSITIVE_INFINITY;
    for (const [key, atMs] of this.#at) {
      if (atMs <= now) {
        this.#at.delete(key);
        this.#wake(key);
      } else next = Math.min(next, atMs);
    }
    if (next < this.#timerAtMs) this.#arm(next);
  }
}
