/** Trying again, with exponential backoff and jitter, until a scope ends. */
import type { Clock } from './clock.ts';
import type { Random } from './random.ts';

export interface BackoffPolicy {
  readonly initialMs: number;
  readonly maxMs: number;
  /** Attempts in all; none: no limit. */
  readonly attempts?: number;
}

/** The wait before attempt `attempt` + 1 (from 1): doubled each time, up to the maximum, of which the upper half is jitter. */
export function backoffMs(policy: BackoffPolicy, attempt: number, random: Random): number {
  const ceiling = Math.min(policy.maxMs, policy.initialMs * 2 ** Math.min(attempt - 1, 30));
  return ceiling / 2 + random.int(Math.max(1, Math.ceil(ceiling / 2)));
}

/** Runs `action` until it succeeds, `again` refuses its error, attempts run out, or the signal aborts. */
export async function retry<T>(
  parts: { clock: Clock; random: Random; signal?: AbortSignal },
  policy: BackoffPolicy,
  action: (attempt: number) => Promise<T>,
  again: (error: unknown) => boolean = () => true,
): Promise<T> {
  for (let attempt = 1; ; attempt++) {
    parts.signal?.throwIfAborted();
    try {
      return await action(attempt);
    } catch (error) {
      if (attempt >= (policy.attempts ?? Number.POSITIVE_INFINITY) || !again(error)) throw error;
      await parts.clock.sleep(backoffMs(policy, attempt, parts.random), parts.signal);
    }
  }
}
