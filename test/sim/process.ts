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
    return new (heldAs(part))(this, part) as T;
  }

  /** As this process calls what it holds. */
  call(part: object, method: (...input: unknown[]) => unknown, input: unknown[]): unknown {
    for (let at = 0; at < input.length; at++) {
      const one = input[at];
      if (typeof one === 'function') input[at] = this.#listener(one as never);
    }
    const result = method.apply(part, input);
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

/** Something in the hands of a process. What it has is on the prototype, so that all that is held of one kind is the same to the compiler. */
class Held {
  readonly process: Process;
  readonly part: Record<string, unknown>;

  constructor(process: Process, part: object) {
    this.process = process;
    this.part = part as Record<string, unknown>;
  }
}

const heldKinds = new WeakMap<object, typeof Held>();

function heldAs(part: object): typeof Held {
  const kind = Object.getPrototypeOf(part) as object;
  let held = kind === Object.prototype ? undefined : heldKinds.get(kind);
  if (held) return held;
  held = class extends Held {};
  for (let level: object = part; level !== Object.prototype; level = Object.getPrototypeOf(level))
    for (const [name, { value, get }] of Object.entries(Object.getOwnPropertyDescriptors(level))) {
      if (Object.hasOwn(held.prototype, name)) continue;
      Object.defineProperty(held.prototype, name, heldProperty(name, level === part ? undefined : value, get));
    }
  if (kind !== Object.prototype) heldKinds.set(kind, held);
  return held;
}

function heldProperty(name: string, value: unknown, get: (() => unknown) | undefined): PropertyDescriptor {
  if (get)
    return {
      get(this: Held) {
        return get.call(this.part);
      },
    };
  // What the part has itself is another thing in each.
  if (typeof value !== 'function')
    return {
      get(this: Held) {
        const own = this.part[name];
        return typeof own === 'function'
          ? (...input: unknown[]) => this.process.call(this.part, own as never, input)
          : own;
      },
    };
  const method = value as (...input: unknown[]) => unknown;
  return {
    value(this: Held, ...input: unknown[]) {
      return this.process.call(this.part, method, input);
    },
  };
}
