/** Between how many tasks an autoscaled service moves now, by its schedule. */
import type { Autoscale } from '#proto/model/autoscale.ts';
import type { Zones } from '#proto/model/calendar.ts';
import { never } from './seats.ts';

/** Between how many tasks it moves. */
export interface Range {
  readonly min: number;
  readonly max: number;
  /** The expression that says so; empty: no schedule does. */
  readonly cron: string;
}

/** A range, and until when it is in force (wall clock ms; Infinity: for ever). */
export interface ScheduledRange {
  readonly range: Range;
  readonly untilMs: number;
}

/** An entry that is due less than once a year is none that anybody waits for. */
const longestMs = 400 * 86_400_000;

/** Of entries that are due at one instant the last one counts. */
export function scheduledRange(spec: Autoscale, zones: Zones, nowMs: number): ScheduledRange {
  let range: Range = { min: spec.min, max: spec.max, cron: '' };
  let sinceMs = Number.NEGATIVE_INFINITY;
  let untilMs = never;
  for (const { cron, timezone, min, max } of spec.schedule) {
    const calendar = zones.calendar(cron, timezone);
    const last = calendar.last(nowMs - longestMs, nowMs);
    if (last !== undefined && last >= sinceMs) {
      range = { min, max, cron };
      sinceMs = last;
    }
    untilMs = Math.min(untilMs, calendar.next(nowMs) ?? never);
  }
  return { range, untilMs };
}
