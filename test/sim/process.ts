/** A process, or a whole machine, that can be stopped and killed between two events: its timers, calls and messages then wait, or never come. */
import { type Clock, sleepOn, type Timer } from '#proto/kernel/clock.ts';

/** Due while its process stands still, it can be cancelled until that goes on. */
class ProcessTimer implements Timer {
  #action: (() => void) | undefined;
  readonly #process: Process;
  readonly #timer: Timer;

  constructor(process: Process, clock: Clock, ms: number, action: () => void) {
    this.#action = action;
    this.#process = process;
    this.#timer = clock.after(ms, () => this.#due());
  }

  #due(): void {
    if (this.#process.running) this.#action?.();
    else this.#process.do(() => this.#action?.());
  }

  cancel(): void {
    this.#action = undefined;
    this.#timer.cancel();
  }
}

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
    return new ProcessTimer(this, this.#clock, ms, action);
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
    const target = part as Record<string, unknown>;
    const held: Record<string, unknown> = {};
    for (let level: object = part; level !== Object.prototype; level = Object.getPrototypeOf(level))
      for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
        if (name in held) continue;
        if (typeof value !== 'function') Object.defineProperty(held, name, { get: () => target[name] });
        else held[name] = (...input: unknown[]) => this.#call(target, name, input);
      }
    return held as T;
  }

  #call(target: Record<string, unknown>, name: string, input: readonly unknown[]): unknown {
    const mine = input.map((one) => (typeof one === 'function' ? this.#listener(one as never) : one));
    const result = (target[name] as (...input: unknown[]) => unknown).apply(target, mine);
    return result instanceof Promise ? this.#heard(result) : result;
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
