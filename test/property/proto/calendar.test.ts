/** When schedules are due, against an oracle that looks at every minute and asks the clock on the wall. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Zones } from '#proto/model/calendar.ts';
import { parseCron } from '#proto/model/cron.ts';

const zones = new Zones();
const minuteMs = 60_000;
const spanMs = 4 * 86_400_000;

/** Two changes of clocks each, and an ordinary day. */
const places = [
  ['Europe/Berlin', '2026-03-29T01:00Z'],
  ['Europe/Berlin', '2026-10-25T01:00Z'],
  ['America/New_York', '2026-03-08T07:00Z'],
  ['America/New_York', '2026-11-01T06:00Z'],
  ['Australia/Lord_Howe', '2026-10-03T15:30Z'],
  ['Australia/Lord_Howe', '2026-04-04T15:00Z'],
  ['Africa/Casablanca', '2026-02-15T02:00Z'],
  ['America/Havana', '2026-03-08T05:00Z'],
  ['Asia/Kathmandu', '2026-06-01T00:00Z'],
  ['UTC', '2024-02-28T00:00Z'],
] as const;

interface Local {
  readonly minute: number;
  readonly hour: number;
  readonly day: number;
  readonly month: number;
  readonly weekday: number;
  /** As if it were UTC. */
  readonly ms: number;
}

const formats = new Map(
  places.map(([zone]) => [
    zone,
    new Intl.DateTimeFormat('en-US', {
      timeZone: zone,
      hourCycle: 'h23',
      year: 'numeric',
      month: 'numeric',
      day: 'numeric',
      hour: 'numeric',
      minute: 'numeric',
    }),
  ]),
);

/** Asked of the same days again and again, and slow to format. */
const known = new Map<string, Map<number, Local>>(places.map(([zone]) => [zone, new Map()]));

function localAt(zone: (typeof places)[number][0], atMs: number): Local {
  const before = known.get(zone)!.get(atMs);
  if (before) return before;
  const parts = Object.fromEntries(
    formats
      .get(zone)!
      .formatToParts(atMs)
      .map(({ type, value }) => [type, Number(value)]),
  ) as Record<'year' | 'month' | 'day' | 'hour' | 'minute', number>;
  const { year, month, day, hour, minute } = parts;
  const ms = Date.UTC(year, month - 1, day, hour, minute);
  const local = { minute, hour, day, month, weekday: new Date(ms).getUTCDay(), ms };
  known.get(zone)!.set(atMs, local);
  return local;
}

/** Every minute of the span that is due, by looking at each: as the page of Vixie's cron says it. */
function bruteForce(zone: (typeof places)[number][0], expression: string, fromMs: number, untilMs: number): number[] {
  const cron = parseCron(expression);
  const isNamed = ({ minute, hour, day, month, weekday }: Local) => {
    const [byDay, byWeekday] = [cron.days.has(day), cron.weekdays.has(weekday)];
    return (
      cron.minutes.includes(minute) &&
      cron.hours.includes(hour) &&
      cron.months.has(month) &&
      (cron.eitherDay ? byDay || byWeekday : byDay && byWeekday)
    );
  };
  const [minutes, hours] = expression.split(' ');
  const fixed = !minutes!.startsWith('*') && !hours!.startsWith('*');
  const due: number[] = [];
  // A day before, to know what the clock has shown already.
  let shown = Number.NEGATIVE_INFINITY;
  for (let at = fromMs - 86_400_000; at <= untilMs; at += minuteMs) {
    const local = localAt(zone, at);
    let runs = isNamed(local) && !(fixed && local.ms <= shown);
    // The clock jumped: what it left out is due now.
    if (fixed && shown > 0)
      for (let left = shown + minuteMs; left < local.ms; left += minuteMs) {
        const date = new Date(left);
        runs ||= isNamed({
          minute: date.getUTCMinutes(),
          hour: date.getUTCHours(),
          day: date.getUTCDate(),
          month: date.getUTCMonth() + 1,
          weekday: date.getUTCDay(),
          ms: left,
        });
      }
    shown = Math.max(shown, local.ms);
    if (runs && at > fromMs) due.push(at);
  }
  return due;
}

const number = (least: number, most: number) => fc.integer({ min: least, max: most }).map(String);
const field = (least: number, most: number) =>
  fc.oneof(
    fc.constant('*'),
    number(2, Math.max(2, Math.floor(most / 2))).map((step) => `*/${step}`),
    number(least, most),
    fc
      .tuple(fc.integer({ min: least, max: most }), fc.integer({ min: least, max: most }))
      .map(([a, b]) => `${Math.min(a, b)}-${Math.max(a, b)}`),
    fc.array(number(least, most), { minLength: 2, maxLength: 4 }).map((list) => list.join(',')),
  );
/** Around the hours in which clocks are set. */
const expression = fc
  .tuple(
    field(0, 59),
    fc.oneof(field(0, 23), field(0, 3)),
    fc.oneof({ weight: 3, arbitrary: fc.constant('*') }, field(1, 31)),
    fc.oneof({ weight: 5, arbitrary: fc.constant('*') }, field(1, 12)),
    fc.oneof({ weight: 3, arbitrary: fc.constant('*') }, field(0, 6)),
  )
  .map((fields) => fields.join(' '))
  .filter((text) => {
    try {
      parseCron(text);
      return true;
    } catch {
      return false; // a day that no year has
    }
  });

describe('the calendar', () => {
  it('names the same instants as looking at every minute, also where clocks are set', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...places),
        expression,
        fc.integer({ min: 0, max: spanMs }),
        ([zone, change], cron, before) => {
          const fromMs = Math.floor((Date.parse(change) - before) / minuteMs) * minuteMs;
          const untilMs = fromMs + spanMs;
          const calendar = zones.calendar(cron, zone);
          const due: number[] = [];
          for (let at: number | undefined = fromMs; ; ) {
            at = calendar.next(at);
            if (at === undefined || at > untilMs) break;
            due.push(at);
          }
          const iso = (instants: readonly number[]) => instants.map((at) => new Date(at).toISOString());
          expect(iso(due)).toEqual(iso(bruteForce(zone, cron, fromMs, untilMs)));
        },
      ),
      { numRuns: 150 },
    );
  });

  it('finds the last instant up to one as the last of all those before it', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...places),
        expression,
        fc.integer({ min: 0, max: spanMs / 1_000 }),
        ([zone, change], cron, seconds) => {
          const fromMs = Date.parse(change) - spanMs / 2;
          const untilMs = fromMs + seconds * 1_000;
          const calendar = zones.calendar(cron, zone);
          let last: number | undefined;
          for (let at = calendar.next(fromMs); at !== undefined && at <= untilMs; at = calendar.next(at)) last = at;
          expect(calendar.last(fromMs, untilMs)).toBe(last);
        },
      ),
      { numRuns: 200 },
    );
  });
});
