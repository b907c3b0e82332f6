/** Time that passes only when told to, one event after another, so that a whole cluster can be replayed. */
import { type Clock, sleepOn, type Timer } from '#proto/kernel/clock.ts';

class Event implements Timer {
  readonly atMs: number;
  readonly order: number;
  action: (() => void) | undefined;

  constructor(atMs: number, order: number, action: () => void) {
    this.atMs = atMs;
    this.order = order;
    this.action = action;
  }

  cancel(): void {
    this.action = undefined;
  }
}

export class FakeClock implements Clock {
  #nowMs = 0;
  #order = 0;
  /** A binary heap by time, then by the order in which they were asked for. */
  readonly #events: Event[] = [];
  readonly #epochMs: number;

  /** `epochMs`: the wall clock when it begins. */
  constructor(epochMs = 1_750_000_000_000) {
    this.#epochMs = epochMs;
  }

  now(): number {
    return this.#epochMs + Math.floor(this.#nowMs);
  }
  monotonic(): number {
    return this.#nowMs;
  }
  boottime(): number {
    return this.#nowMs;
  }
  after(ms: number, action: () => void): Timer {
    const event = new Event(this.#nowMs + Math.max(0, ms), this.#order++, action);
    this.#push(event);
    return event;
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }

  /** Lets `ms` pass: runs every event due by then, and all that follows from each before the next. */
  pass(ms: number): Promise<void> {
    const untilMs = this.#nowMs + ms;
    return new Promise((resolve, reject) => {
      // Outside of any promise's turn, where the queue of those can be emptied.
      setImmediate(() => {
        try {
          this.#run(untilMs);
          resolve();
        } catch (error) {
          reject(error);
        }
      });
    });
  }

  #run(untilMs: number): void {
    settle();
    for (let event = this.#events[0]; event && event.atMs <= untilMs; event = this.#events[0]) {
      this.#pop();
      const { action } = event;
      if (!action) continue;
      if (event.atMs > this.#nowMs) this.#nowMs = event.atMs;
      action();
      settle();
    }
    this.#nowMs = untilMs;
  }

  #push(event: Event): void {
    const heap = this.#events;
    let at = heap.push(event) - 1;
    for (let parent = (at - 1) >> 1; at > 0 && before(event, heap[parent]!); parent = (at - 1) >> 1) {
      heap[at] = heap[parent]!;
      at = parent;
    }
    heap[at] = event;
  }

  #pop(): void {
    const heap = this.#events;
    const last = heap.pop()!;
    if (heap.length === 0) return;
    let at = 0;
    for (let child = 1; child < heap.length; child = 2 * at + 1) {
      if (child + 1 < heap.length && before(heap[child + 1]!, heap[child]!)) child++;
      if (before(last, heap[child]!)) break;
      heap[at] = heap[child]!;
      at = child;
    }
    heap[at] = last;
  }
}

function before(a: Event, b: Event): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order);
}

/**
 * Every promise that can settle without time passing has, and every `nextTick` was called: what Node itself does between two events.
 * A turn of its event loop for each event would do the same, and takes most of the time of a simulation.
 */
const settle = (process as unknown as { _tickCallback(): void })._tickCallback;
