/** A process, or a whole machine, that can be stopped and killed between two events: its timers, calls and messages then wait, or never come. */
import { type Clock, sleepOn, type Timer } from '#proto/kernel/clock.ts';

export class Process implements Clock {
  readonly #clock: Clock;
  /** What its wall clock is off by. */
  skewMs = 0;
  #state: 'running' | 'paused' | 'dead' = 'running';
  #late: (() => void)[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  get alive(): boolean {
    return this.#state !== 'dead';
  }
  get running(): boolean {
    return this.#state === 'running';
  }

  now(): number {
    return this.#clock.now() + this.skewMs;
  }
  monotonic(): number {
    return this.#clock.monotonic();
  }
  boottime(): number {
    return this.#clock.boottime();
  }
  after(ms: number, action: () => void): Timer {
    let cancelled = false;
    const timer = this.#clock.after(ms, () =>
      this.do(() => {
        if (!cancelled) action();
      }),
    );
    return {
      cancel() {
        cancelled = true;
        timer.cancel();
      },
    };
  }
  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return sleepOn(this, ms, signal);
  }

  /** Runs `action` in this process: now, when it goes on, or never. */
  do(action: () => void): void {
    if (this.#state === 'running') action();
    else if (this.#state === 'paused') this.#late.push(action);
  }

  pause(): void {
    if (this.#state === 'running') this.#state = 'paused';
  }
  resume(): void {
    if (this.#state !== 'paused') return;
    this.#state = 'running';
    const late = this.#late;
    this.#late = [];
    for (const action of late) this.#clock.after(0, () => this.do(action));
  }
  kill(): void {
    this.#state = 'dead';
    this.#late = [];
  }

  /** `part` as this process holds it: what it asked for still happens when it dies, but it does not hear of it. */
  hold<T extends object>(part: T): T {
    const held = new Map<PropertyKey, { readonly method: unknown; readonly asHeld: unknown }>();
    return new Proxy(part, {
      get: (target, name) => {
        const value = Reflect.get(target, name, target);
        if (typeof value !== 'function') return value;
        const known = held.get(name);
        if (known?.method === value) return known.asHeld;
        const asHeld = (...input: unknown[]) => {
          const mine = input.map((one) => (typeof one === 'function' ? this.#listener(one as never) : one));
          const result = value.apply(target, mine);
          return result instanceof Promise ? this.#heard(result) : result;
        };
        held.set(name, { method: value, asHeld });
        return asHeld;
      },
    });
  }

  #listener(listener: (...input: unknown[]) => void) {
    return (...input: unknown[]) => this.do(() => listener(...input));
  }

  #heard<T>(promise: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      promise.then(
        (value) => this.do(() => resolve(value)),
        (error) => this.do(() => reject(error)),
      );
    });
  }
}
