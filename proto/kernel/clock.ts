/** The only door to time: everything that waits or reads the clock is handed one of these, so that a simulation can own time. */
import { openSync, readSync } from 'node:fs';

export interface Clock {
  /** Wall-clock time, ms since the epoch; may jump. For what people read. */
  now(): number;
  /** Monotonic time in ms from an arbitrary origin; for deadlines and leases. */
  monotonic(): number;
  /** As `monotonic`, but it counts sleep of the machine, and is the same for all processes of it (CLOCK_BOOTTIME). */
  boottime(): number;
  /** Runs `action` once after `ms`; the result cancels it. */
  after(ms: number, action: () => void): Timer;
  /** Resolves after `ms`, or rejects with the signal's reason when it aborts first. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** A pending action of a clock. */
export interface Timer {
  cancel(): void;
}

let uptime: number | undefined;
const text = Buffer.alloc(64);

/** /proc/uptime is CLOCK_BOOTTIME in steps of 10 ms, and costs a microsecond or two. */
function readUptime(): number {
  uptime ??= openSync('/proc/uptime', 'r');
  const length = readSync(uptime, text, 0, text.length, 0);
  return Math.round(Number.parseFloat(text.toString('latin1', 0, length)) * 1_000);
}

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  boottime: readUptime,
  after(ms, action) {
    const handle = setTimeout(action, ms);
    return { cancel: () => clearTimeout(handle) };
  },
  sleep: (ms, signal) => sleepOn(systemClock, ms, signal),
};

/** `Clock.sleep` in terms of `Clock.after`, for every implementation of the interface. */
export function sleepOn(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const onAbort = () => {
      timer.cancel();
      reject(signal?.reason);
    };
    const timer = clock.after(ms, () => {
      signal?.removeEventListener('abort', onAbort);
      resolve();
    });
    signal?.addEventListener('abort', onAbort, { once: true });
  });
}
