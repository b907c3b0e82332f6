/** What a job's schedule asks for now: iterations that begin, instants that are skipped, and when to look again. */
import type { Calendar } from '#proto/model/calendar.ts';
import type { Job, Schedule } from '#proto/model/job.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { another, type Beginning, begin, isUnderWay, skip } from './iterations.ts';
import { never } from './seats.ts';

/** Of instants that nobody saw, at most so many are caught up on: the last ones. */
export const mostCaughtUp = 100;
/** Iterations of one job at once, where they may overlap. */
export const mostUnderWay = 20;
/** What is not caught up on may still begin so late: a change of leaders is no miss. */
const punctualMs = 10_000;

export interface Scheduled {
  readonly job: Job;
  /** Wall clock, ms; Infinity: not because of time. */
  readonly wakeAtMs: number;
}

/**
 * Moves `decidedUntilMs` on to the last instant that is due: whoever commits that commits the iterations with it, so that no
 * other leader can begin one of the same instant. `job`: with the states that its iterations have now.
 */
export function scheduled(
  spec: ServiceSpec & { readonly schedule: Schedule },
  revision: number,
  job: Job,
  calendar: Calendar,
  now: number,
): Scheduled {
  const { schedule } = spec;
  if (schedule.suspend || job.suspended) return { job, wakeAtMs: never };
  let next = job;
  for (const { atMs, missed } of dueInstants(schedule, calendar, job.decidedUntilMs, now)) {
    const waits = schedule.overlap === 'forbid' && schedule.catchUp === 'all' && next.iterations.some(isUnderWay);
    if (waits) return { job: next, wakeAtMs: never };
    const beginning: Beginning = { spec, revision, now, dueAtMs: atMs, message: missed };
    next = { ...decided(next, schedule, beginning), decidedUntilMs: atMs };
  }
  return { job: next, wakeAtMs: calendar.next(Math.max(next.decidedUntilMs, now)) ?? never };
}

/** One instant that is due. */
function decided(job: Job, schedule: Schedule, beginning: Beginning): Job {
  const { now, dueAtMs } = beginning;
  const deadlineMs = schedule.startingDeadlineMs || (schedule.catchUp === 'none' ? punctualMs : never);
  if (now - dueAtMs > deadlineMs)
    return skip(job, { ...beginning, message: `${(now - dueAtMs) / 1_000} s late, too late to begin` });
  const underWay = job.iterations.filter(isUnderWay);
  if (underWay.length === 0) return begin(job, beginning);
  switch (schedule.overlap) {
    case 'forbid':
      return skip(job, { ...beginning, message: `iteration ${underWay[0]!.number} was still under way` });
    case 'replace':
      return another(job, { ...beginning, message: 'the next instant was due' });
    case 'allow':
      if (underWay.length < mostUnderWay) return begin(job, beginning);
      return skip(job, { ...beginning, message: `${underWay.length} iterations were under way` });
  }
}

interface Due {
  readonly atMs: number;
  /** Of instants before it that are lost, in words. */
  readonly missed: string;
}

/** Instants in (afterMs, now] that may have an iteration, oldest first: the last one, or as many as may be caught up on. */
function dueInstants({ catchUp, overlap }: Schedule, calendar: Calendar, afterMs: number, now: number): Due[] {
  const first = calendar.next(afterMs);
  if (first === undefined || first > now) return [];
  const most = catchUp === 'all' && overlap !== 'replace' ? mostCaughtUp : 1;
  const instants = [];
  for (let at: number | undefined = first; at !== undefined && at <= now; at = calendar.next(at)) {
    if (instants.length === most) return lastInstants(calendar, afterMs, now, most, first);
    instants.push({ atMs: at, missed: '' });
  }
  return instants;
}

function lastInstants(calendar: Calendar, afterMs: number, now: number, count: number, firstMs: number): Due[] {
  const instants: Due[] = [];
  for (let until = now; instants.length < count; ) {
    const atMs = calendar.last(afterMs, until);
    if (atMs === undefined) break;
    instants.unshift({ atMs, missed: '' });
    until = atMs - 1;
  }
  const [oldest, ...others] = instants;
  if (!oldest) return [];
  return [{ ...oldest, missed: `those due from ${new Date(firstMs).toISOString()} on were missed` }, ...others];
}
