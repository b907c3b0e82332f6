/** Waits until nobody has a connection to a task any more: one look at the kernel for all tasks of the node that wait. */
import type { Network } from '#net/network.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';

export interface DrainRequest {
  /** Of the task. */
  readonly addresses: readonly string[];
  /** After so long it is enough. */
  readonly limitMs: number;
  /** Aborts where there is nothing to wait for any more. */
  readonly signal: AbortSignal;
  /** Told how many connections are left, not more often than people read. */
  readonly left: (connections: number) => void;
}

interface Waiter extends DrainRequest {
  readonly deadlineMs: number;
  readonly done: () => void;
  saidAtMs: number;
  said: number;
}

/** Between two looks; one alone takes the kernel 10 ms and more. */
const lookEveryMs = 100;
/** Between two words about one task: each is a commit. */
const sayEveryMs = 500;

export class Drain {
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #network: Pick<Network, 'connections'>;
  readonly #waiting = new Set<Waiter>();
  #looking = false;
  #timer: Timer | undefined;

  constructor(parts: { readonly clock: Clock; readonly log: Log; readonly network: Pick<Network, 'connections'> }) {
    this.#clock = parts.clock;
    this.#log = parts.log;
    this.#network = parts.network;
  }

  /** Resolves when no connection is left, at the limit, or when aborted; never rejects. */
  wait(request: DrainRequest): Promise<void> {
    const { addresses, limitMs, signal } = request;
    if (addresses.length === 0 || limitMs <= 0 || signal.aborted) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.#waiting.delete(waiter);
        if (this.#waiting.size === 0) this.#timer?.cancel();
        signal.removeEventListener('abort', done);
        resolve();
      };
      const deadlineMs = this.#clock.monotonic() + limitMs;
      const waiter: Waiter = { ...request, deadlineMs, done, saidAtMs: Number.NEGATIVE_INFINITY, said: 0 };
      signal.addEventListener('abort', done, { once: true });
      this.#waiting.add(waiter);
      // Whoever comes is looked at next, or together with all who come during a look.
      if (!this.#looking) void this.#look();
    });
  }

  async #look(): Promise<void> {
    this.#looking = true;
    this.#timer?.cancel();
    let looked: readonly Waiter[];
    do {
      looked = [...this.#waiting];
      const counts = await this.#count(looked.flatMap(({ addresses }) => addresses));
      for (const waiter of looked) if (this.#waiting.has(waiter)) this.#judge(waiter, counts);
    } while ([...this.#waiting].some((waiter) => !looked.includes(waiter)));
    this.#looking = false;
    if (this.#waiting.size === 0) return;
    const now = this.#clock.monotonic();
    const leftMs = Math.min(...[...this.#waiting].map(({ deadlineMs }) => deadlineMs - now));
    this.#timer = this.#clock.after(Math.max(0, Math.min(lookEveryMs, leftMs)), () => void this.#look());
  }

  async #count(addresses: readonly string[]): Promise<ReadonlyMap<string, number>> {
    try {
      return await this.#network.connections(addresses);
    } catch (error) {
      this.#log.warn('connections could not be counted, tasks are stopped without draining', { error });
      return new Map();
    }
  }

  #judge(waiter: Waiter, counts: ReadonlyMap<string, number>): void {
    const left = waiter.addresses.reduce((sum, address) => sum + (counts.get(address) ?? 0), 0);
    const now = this.#clock.monotonic();
    if (left === 0 || now >= waiter.deadlineMs) {
      waiter.done();
      return;
    }
    if (left === waiter.said || now - waiter.saidAtMs < sayEveryMs) return;
    waiter.said = left;
    waiter.saidAtMs = now;
    waiter.left(left);
  }
}
