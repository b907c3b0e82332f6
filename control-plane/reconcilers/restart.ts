/** What follows when a task has ended by itself: another one at once, later, or none. */
import type { RestartPolicy } from '#proto/model/service.ts';
import { isIsolated, type Task } from '#proto/model/task.ts';
import { called, endedByItself, endOf, hasFailed, latestOf, ranForMs, type Seat, seatedAtMs } from './seats.ts';

/** A task that ran this long was well: what follows is no crash loop. */
export const stableMs = 5_000;
/** The first wait of a crash loop where the policy has no delay; doubled with each further quick end. */
export const firstBackoffMs = 250;
export const mostBackoffMs = 30_000;

export type Restart =
  | { readonly verdict: 'start'; readonly startAfterMs: number; readonly why: string }
  /** Not again; `why` says which part of the policy forbids it. */
  | { readonly verdict: 'leave'; readonly why: string };

/**
 * The policy's word about a seat whose latest task of `revision` ended by itself. Attempts are counted among tasks of that
 * revision; the wait grows from the wait of the task that ended, so that it needs no longer history than two tasks.
 */
export function restart(seat: Seat, revision: number, policy: RestartPolicy, now: number): Restart {
  const ended = seat.tasks.filter((task) => task.revision === revision);
  const last = ended.at(-1)!;
  const how = `${called(last)}: ${endOf(last)}`;
  if (policy.condition === 'none')
    return { verdict: 'leave', why: `not restarted: ${endOf(last)}, and the policy is none` };
  if (policy.condition === 'on-failure' && !hasFailed(last)) {
    return { verdict: 'leave', why: 'not restarted: completed, and the policy is on-failure' };
  }
  const used = attemptsUsed(ended, policy.windowMs, now);
  if (policy.maxAttempts > 0 && used >= policy.maxAttempts) {
    return { verdict: 'leave', why: `not restarted: ${endOf(last)}, and all ${policy.maxAttempts} attempts are used` };
  }
  const waitMs = waitBefore(ended, policy.delayMs);
  if (waitMs === 0) return { verdict: 'start', startAfterMs: 0, why: `restarts ${how}` };
  const words = policy.delayMs >= waitMs ? 'by its policy' : 'as it ends again and again';
  return {
    verdict: 'start',
    // The clock may have been set back: the wait is read from this and from when the next one was made (new-task.ts), and must not shrink.
    startAfterMs: Math.max(now, seatedAtMs(latestOf(seat)!) + 1) + waitMs,
    why: `restarts ${how}; waits ${waitMs < 1_000 ? `${waitMs} ms` : `${waitMs / 1_000} s`} ${words}`,
  };
}

/** Restarts so far: every task of the seat but the first, within the window where there is one. */
function attemptsUsed(tasks: readonly Task[], windowMs: number, now: number): number {
  return tasks.filter((task, index) => index > 0 && (windowMs === 0 || task.createdAtMs > now - windowMs)).length;
}

function waitBefore(ended: readonly Task[], delayMs: number): number {
  const last = ended.at(-1)!;
  const before = ended.at(-2);
  if (!endedQuickly(last) || !before || !endedByItself(before) || !endedQuickly(before)) return delayMs;
  const waited = last.startAfterMs > 0 ? last.startAfterMs - last.createdAtMs : 0;
  return Math.max(delayMs, Math.min(mostBackoffMs, waited < firstBackoffMs ? firstBackoffMs : waited * 2));
}

/** It never ran, or not for long. What is isolated has run for as long as its check was patient. */
export function endedQuickly(task: Task): boolean {
  return !isIsolated(task) && ranForMs(task) < stableMs;
}
