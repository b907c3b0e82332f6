/** When a schedule is due: the local times that its expression names, as instants, with the days on which clocks are set. */
import { Fault } from '../kernel/errors.ts';
import { type Cron, nextLocalTime, parseCron } from './cron.ts';

/** How far local time is ahead of UTC at an instant, ms. */
type OffsetAt = (atMs: number) => number;

/** Time zones and calendars by name. Making one is dear, so whoever asks often keeps one of these. */
export class Zones {
  readonly #offsets = new Map<string, OffsetAt>();
  readonly #calendars = new Map<string, Calendar>();

  /** The calendar of an expression in a zone of the IANA database; '' is UTC. Faults: `invalid`. */
  calendar(cron: string, timezone: string): Calendar {
    const name = `${timezone} ${cron}`;
    const known = this.#calendars.get(name);
    if (known) return known;
    const calendar = new Calendar(parseCron(cron), this.#offset(timezone));
    this.#calendars.set(name, calendar);
    return calendar;
  }

  #offset(timezone: string): OffsetAt {
    const known = this.#offsets.get(timezone);
    if (known) return known;
    const offset = offsetOf(timezone);
    this.#offsets.set(timezone, offset);
    return offset;
  }
}

function offsetOf(timezone: string): OffsetAt {
  if (timezone === '' || timezone === 'UTC') return () => 0;
  let format: Intl.DateTimeFormat;
  try {
    format = new Intl.DateTimeFormat('en-US', { timeZone: timezone, timeZoneName: 'longOffset' });
  } catch (error) {
    throw new Fault('invalid', `"${timezone}" is no time zone`, {
      cause: error,
      remedy: 'write its name, such as Europe/Berlin, or UTC',
    });
  }
  return (atMs) => {
    const [, sign, hours, minutes, seconds = '0'] = /GMT([+-])(\d+):(\d+)(?::(\d+))?$/.exec(format.format(atMs)) ?? [];
    if (sign === undefined) return 0;
    const ms = (Number(hours) * 3_600 + Number(minutes) * 60 + Number(seconds)) * 1_000;
    return sign === '-' ? -ms : ms;
  };
}

const dayMs = 86_400_000;
/** A zone whose clocks are set at every look is none: this many looks, a day or more each, are more than enough. */
const mostLooks = 5_000;

/**
 * Times of day that the expression names by minute and hour come once a day, as in Vixie's cron: those that a clock set forward
 * leaves out are due at the moment it is set, those that a clock set back shows twice are due the first time.
 * An expression with `*` for minute or hour goes by what the clock shows: nothing in what is left out, twice in what comes twice.
 */
export class Calendar {
  readonly #cron: Cron;
  readonly #offsetAt: OffsetAt;

  constructor(cron: Cron, offsetAt: OffsetAt) {
    this.#cron = cron;
    this.#offsetAt = offsetAt;
  }

  /** The first instant after `afterMs`; undefined where none will come. */
  next(afterMs: number): number | undefined {
    let at = afterMs;
    let local = this.#localAt(at);
    for (let look = 0; look < mostLooks; look++) {
      const offset = this.#offsetAt(at);
      const named = nextLocalTime(this.#cron, local);
      if (named === undefined) return undefined;
      const due = named - offset;
      const until = at + dayMs;
      if (this.#offsetAt(until) === offset) {
        if (due <= until) return due;
        // No time in between is named, however often its clocks are set.
        at = Math.max(until, due - dayMs);
        local = this.#localAt(at);
        continue;
      }
      const set = this.#whenSet(at, until);
      if (due < set) return due;
      const [before, after] = [set + offset, set + this.#offsetAt(set)];
      if (this.#cron.fixed && named < after) return set;
      at = set;
      local = (this.#cron.fixed ? Math.max(before, after) : after) - 1;
    }
    return undefined;
  }

  /** The last instant up to `untilMs`, that one included, but none up to `afterMs`. */
  last(afterMs: number, untilMs: number): number | undefined {
    let most = untilMs;
    let least = afterMs;
    // The span before the end in which there is one, doubled until there is.
    for (let span = 1_000; ; span *= 2) {
      const from = Math.max(afterMs, untilMs - span);
      if (this.#isDue(from, untilMs)) {
        least = from;
        break;
      }
      if (from === afterMs) return undefined;
      most = from;
    }
    // In (least, untilMs] there is one, in (most, untilMs] there is none.
    while (most - least > 1) {
      const middle = Math.floor((least + most) / 2);
      if (this.#isDue(middle, untilMs)) least = middle;
      else most = middle;
    }
    return this.next(least);
  }

  #isDue(afterMs: number, untilMs: number): boolean {
    return (this.next(afterMs) ?? Number.POSITIVE_INFINITY) <= untilMs;
  }

  /** The local time that counts as passed at an instant: where the clock was just set back and times count once, the latest it showed. */
  #localAt(at: number): number {
    const local = at + this.#offsetAt(at);
    const offset = this.#offsetAt(at - dayMs);
    if (!this.#cron.fixed || offset + at <= local) return local;
    return Math.max(local, this.#whenSet(at - dayMs, at) + offset - 1);
  }

  /** The first instant of (from, until] with another offset than `from`'s. */
  #whenSet(from: number, until: number): number {
    const offset = this.#offsetAt(from);
    let [same, other] = [from, until];
    while (other - same > 1) {
      const middle = Math.floor((same + other) / 2);
      if (this.#offsetAt(middle) === offset) same = middle;
      else other = middle;
    }
    return other;
  }
}
