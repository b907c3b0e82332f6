/** Time that passes only when told to, one event after another, so that a whole cluster can be replayed. */
import { type Clock, sleepOn, type Timer } from '#proto/kernel/clock.ts';

class Event implements Timer {
  action: (() => void) | undefined;

  constructor(action: () => void) {
    this.action = action;
  }

  cancel(): void {
    this.action = undefined;
  }
}

export class FakeClock implements Clock {
  #nowMs = 0;
  #order = 0;
  /** A heap by time, then by the order in which they were asked for, with four below each: in three columns, for it is what a simulation does most. */
  readonly #events: Event[] = [];
  #dueMs = new Float64Array(1_024);
  #orders = new Float64Array(1_024);
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
    const event = new Event(action);
    this.#push(event, this.#nowMs + Math.max(0, ms), this.#order++);
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
    while (this.#events.length > 0) {
      const dueMs = this.#dueMs[0]!;
      if (dueMs > untilMs) break;
      const { action } = this.#pop();
      if (!action) continue;
      if (dueMs > this.#nowMs) this.#nowMs = dueMs;
      action();
      settle();
    }
    this.#nowMs = untilMs;
  }

  #push(event: Event, atMs: number, order: number): void {
    const heap = this.#events;
    let at = heap.push(event) - 1;
    if (at === this.#dueMs.length) {
      this.#dueMs = doubled(this.#dueMs);
      this.#orders = doubled(this.#orders);
    }
    const dueMs = this.#dueMs;
    const orders = this.#orders;
    // What is asked for last comes after all that is due at the same time.
    for (let parent = (at - 1) >> 2; at > 0 && atMs < dueMs[parent]!; parent = (at - 1) >> 2) {
      heap[at] = heap[parent]!;
      dueMs[at] = dueMs[parent]!;
      orders[at] = orders[parent]!;
      at = parent;
    }
    heap[at] = event;
    dueMs[at] = atMs;
    orders[at] = order;
  }

  #pop(): Event {
    const heap = this.#events;
    const dueMs = this.#dueMs;
    const orders = this.#orders;
    const first = heap[0]!;
    const last = heap.pop()!;
    const length = heap.length;
    if (length === 0) return first;
    const lastMs = dueMs[length]!;
    const lastOrder = orders[length]!;
    let at = 0;
    for (let child = 1; child < length; child = 4 * at + 1) {
      let least = child;
      let leastMs = dueMs[child]!;
      for (let other = child + 1; other < length && other < child + 4; other++) {
        const otherMs = dueMs[other]!;
        if (otherMs > leastMs || (otherMs === leastMs && orders[other]! > orders[least]!)) continue;
        least = other;
        leastMs = otherMs;
      }
      if (lastMs < leastMs || (lastMs === leastMs && lastOrder < orders[least]!)) break;
      heap[at] = heap[least]!;
      dueMs[at] = leastMs;
      orders[at] = orders[least]!;
      at = least;
    }
    heap[at] = last;
    dueMs[at] = lastMs;
    orders[at] = lastOrder;
    return first;
  }
}

function doubled(column: Float64Array): Float64Array<ArrayBuffer> {
  const wider = new Float64Array(2 * column.length);
  wider.set(column);
  return wider;
}

/**
 * Every promise that can settle without time passing has, and every `nextTick` was called: what Node itself does between two events.
 * A turn of its event loop for each event would do the same, and takes most of the time of a simulation.
 */
const settle = (process as unknown as { _tickCallback(): void })._tickCallback;
