/** The only wait a test may use: asks again until something holds, instead of sleeping and hoping. How long it asks is no promise: a busy machine takes its time. */
import { systemClock } from '#proto/kernel/clock.ts';

/**
 * Runs `check` until it returns something truthy without throwing, and resolves to that.
 * After `timeoutMs` it rejects with the last error of `check`, or says what it returned last.
 */
export async function eventually<T>(
  check: () => T | Promise<T>,
  { timeoutMs = 30_000, everyMs = 20 }: { readonly timeoutMs?: number; readonly everyMs?: number } = {},
): Promise<T> {
  const deadline = systemClock.monotonic() + timeoutMs;
  for (;;) {
    let failure: unknown;
    try {
      const result = await check();
      if (result) return result;
      failure = new Error(`still ${JSON.stringify(result)} after ${timeoutMs} ms`);
    } catch (error) {
      failure = error;
    }
    if (systemClock.monotonic() >= deadline) throw failure;
    await systemClock.sleep(everyMs);
  }
}
