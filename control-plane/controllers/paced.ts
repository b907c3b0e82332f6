/** Work over everything there is, asked for by each of many: it is done at once, and then not again for some times as long as it took. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';

/** So that it takes at most a quarter of our time. */
const restTimes = 3;

export class Paced {
  readonly #clock: Clock;
  readonly #again: () => void;
  #timer: Timer | undefined;
  #notBeforeMs = 0;

  /** `again`: it was asked for too soon, and may be done now. */
  constructor(clock: Clock, again: () => void) {
    this.#clock = clock;
    this.#again = again;
  }

  run(work: () => void): void {
    if (this.#timer) return;
    const beganMs = this.#clock.monotonic();
    if (beganMs < this.#notBeforeMs) {
      this.#timer = this.#clock.after(this.#notBeforeMs - beganMs, () => {
        this.#timer = undefined;
        this.#again();
      });
      return;
    }
    work();
    this.#rest(beganMs);
  }

  /** Does a part of what that work has led to: it counts as if it had been done there. */
  also<Result>(work: () => Result): Result {
    const beganMs = this.#clock.monotonic();
    try {
      return work();
    } finally {
      this.#rest(beganMs);
    }
  }

  #rest(beganMs: number): void {
    const tookMs = this.#clock.monotonic() - beganMs;
    this.#notBeforeMs = Math.max(this.#notBeforeMs, beganMs) + (1 + restTimes) * tookMs;
  }

  stop(): void {
    this.#timer?.cancel();
  }
}
