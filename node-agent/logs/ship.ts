/** `LogShipper` over any `LogSink`: a follower per task, a few of them sending at a time, rotation for all. */
import type { Timer } from '#proto/kernel/clock.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { Limiter } from '../limiter.ts';
import { Follower, type FollowerParts } from './follower.ts';
import type { LogCounts, LogShipper } from './log-shipper.ts';
import { type Positions, positionFiles } from './positions.ts';

export interface LogShipperParts extends Pick<FollowerParts, 'sink' | 'clock' | 'random' | 'log' | 'reopen'> {
  /** Where positions are kept. */
  readonly directory: string;
  readonly limits?: Partial<ShipperLimits>;
}

export interface ShipperLimits {
  /** A file longer than this is rotated. */
  readonly rotateBytes: number;
  /** A file may grow to this while the one before it is not sent; then that one is dropped. */
  readonly spoolBytes: number;
  /** All logs that have ended and are not sent may take this; then the one that ended first is dropped. */
  readonly endedBytes: number;
  /** How long a first new line waits for others. */
  readonly lingerMs: number;
  /** How often a file is looked at where no watch tells of changes. */
  readonly pollMs: number;
  readonly rotateEveryMs: number;
}

const defaults: ShipperLimits = {
  rotateBytes: 16 * 2 ** 20,
  spoolBytes: 64 * 2 ** 20,
  endedBytes: 2 ** 30,
  lingerMs: 20,
  pollMs: 250,
  rotateEveryMs: 1_000,
};
/** Batches in memory at once, and so what a flood of all tasks may take of it. */
const parallelSends = 16;

/** Begins with nothing to follow. */
export async function logShipper(parts: LogShipperParts): Promise<LogShipper> {
  return new Shipper(parts, await positionFiles(parts.directory));
}

class Shipper implements LogShipper {
  readonly #followers = new Map<TaskId, Follower>();
  readonly #counts = { lines: 0, bytes: 0, batches: 0, retries: 0, droppedBytes: 0 };
  readonly #parts: FollowerParts;
  readonly #rotateEveryMs: number;
  #timer: Timer;
  #closed = false;

  constructor(parts: LogShipperParts, positions: Positions) {
    const limits = { ...defaults, ...parts.limits };
    this.#rotateEveryMs = limits.rotateEveryMs;
    this.#parts = {
      ...parts,
      ...limits,
      positions,
      turns: new Limiter(parallelSends),
      count: (what, by) => {
        this.#counts[what] += by;
      },
    };
    this.#timer = this.#rotateLater();
  }

  follow(source: Parameters<LogShipper['follow']>[0]): void {
    if (this.#closed || this.#followers.has(source.taskId)) return;
    this.#followers.set(source.taskId, new Follower(source, this.#parts));
  }

  async ended(task: TaskId, { signal }: { readonly signal?: AbortSignal } = {}): Promise<void> {
    const follower = this.#followers.get(task);
    if (!follower) return;
    const drained = follower.end().then(() => {
      if (this.#followers.get(task) === follower) this.#followers.delete(task);
    });
    if (!signal) return drained;
    drained.catch(() => {});
    let abort = () => {};
    const aborted = new Promise<never>((_, reject) => {
      abort = () => reject(signal.reason);
      if (signal.aborted) abort();
      else signal.addEventListener('abort', abort, { once: true });
    });
    try {
      await Promise.race([drained, aborted]);
    } finally {
      signal.removeEventListener('abort', abort);
    }
  }

  async forget(task: TaskId): Promise<void> {
    const follower = this.#followers.get(task);
    this.#followers.delete(task);
    await follower?.stop(false);
    await this.#parts.positions.forget(task);
  }

  get counts(): LogCounts {
    return { ...this.#counts, following: this.#followers.size };
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#timer.cancel();
    await Promise.all([...this.#followers.values()].map((follower) => follower.stop(true)));
    this.#followers.clear();
  }

  async #boundEnded(): Promise<void> {
    const held: { readonly follower: Follower; readonly endedAt: number; readonly bytes: number }[] = [];
    for (const follower of this.#followers.values()) {
      const { endedAt } = follower;
      if (endedAt !== undefined) held.push({ follower, endedAt, bytes: await follower.held() });
    }
    let total = held.reduce((sum, { bytes }) => sum + bytes, 0);
    if (total <= this.#parts.endedBytes) return;
    for (const { follower, bytes } of held.sort((a, b) => a.endedAt - b.endedAt)) {
      if (total <= this.#parts.endedBytes) return;
      await follower.giveUp();
      total -= bytes;
    }
  }

  #rotateLater(): Timer {
    return this.#parts.clock.after(this.#rotateEveryMs, async () => {
      for (const follower of this.#followers.values()) await follower.rotate();
      await this.#boundEnded();
      if (!this.#closed) this.#timer = this.#rotateLater();
    });
  }
}
