/** Cron expressions: which local times one names. Fields and names as in Vixie's cron, with an optional field for seconds before them. */
import { Fault } from '../kernel/errors.ts';

/** An expression, read. Lists are sorted. */
export interface Cron {
  readonly seconds: readonly number[];
  readonly minutes: readonly number[];
  readonly hours: readonly number[];
  readonly days: ReadonlySet<number>;
  /** From 1. */
  readonly months: ReadonlySet<number>;
  /** Sunday is 0. */
  readonly weekdays: ReadonlySet<number>;
  /** Day of month and day of week are both named: either will do. Else both must hold. */
  readonly eitherDay: boolean;
  /**
   * Minute and hour are named: it means times of day, which come once on every such day, however the clock is set.
   * Else it goes by what the clock shows.
   */
  readonly fixed: boolean;
}

interface Field {
  readonly name: string;
  readonly least: number;
  readonly most: number;
  /** For the numbers from `least` on. */
  readonly names: readonly string[];
}

const second: Field = { name: 'second', least: 0, most: 59, names: [] };
const minute: Field = { name: 'minute', least: 0, most: 59, names: [] };
const hour: Field = { name: 'hour', least: 0, most: 23, names: [] };
const day: Field = { name: 'day of month', least: 1, most: 31, names: [] };
const month: Field = {
  name: 'month',
  least: 1,
  most: 12,
  names: 'jan feb mar apr may jun jul aug sep oct nov dec'.split(' '),
};
/** 7 is Sunday too. */
const weekday: Field = { name: 'day of week', least: 0, most: 7, names: 'sun mon tue wed thu fri sat'.split(' ') };

const nicknames: Readonly<Record<string, string>> = {
  '@yearly': '0 0 1 1 *',
  '@annually': '0 0 1 1 *',
  '@monthly': '0 0 1 * *',
  '@weekly': '0 0 * * 0',
  '@daily': '0 0 * * *',
  '@midnight': '0 0 * * *',
  '@hourly': '0 * * * *',
};

/** Faults: `invalid`, with the field that is wrong. */
export function parseCron(text: string): Cron {
  const expression = text.trim().toLowerCase();
  if (expression.startsWith('@') && !Object.hasOwn(nicknames, expression))
    throw wrong(`"${text}" is no schedule`, `use one of ${Object.keys(nicknames).join(', ')}`);
  const fields = (nicknames[expression] ?? expression).split(/\s+/);
  if (fields.length !== 5 && fields.length !== 6)
    throw wrong(
      `"${text}" has ${fields.length === 1 && fields[0] === '' ? 'no' : fields.length} fields`,
      'write [SECOND] MINUTE HOUR DAY MONTH WEEKDAY, such as */5 * * * *',
    );
  const [seconds, minutes, hours, days, months, weekdays] = fields.length === 6 ? fields : ['0', ...fields];
  const isAny = (field: string | undefined) => field!.startsWith('*') || field === '?';
  const cron: Cron = {
    seconds: readField(second, seconds!),
    minutes: readField(minute, minutes!),
    hours: readField(hour, hours!),
    days: new Set(readField(day, days!)),
    months: new Set(readField(month, months!)),
    weekdays: new Set(readField(weekday, weekdays!).map((number) => number % 7)),
    eitherDay: !isAny(days) && !isAny(weekdays),
    fixed: !isAny(minutes) && !isAny(hours),
  };
  if (!cron.eitherDay && ![...cron.months].some((number) => [...cron.days].some((day) => day <= longest(number))))
    throw wrong(`"${text}" names a day that no year has`, 'choose a day that the month has');
  return cron;
}

function readField(field: Field, text: string): number[] {
  const numbers = new Set<number>();
  for (const part of text.split(',')) {
    const [, from, to, step] = /^(\*|\?|[a-z0-9]+)(?:-([a-z0-9]+))?(?:\/(\d+))?$/.exec(part) ?? [];
    const any = from === '*' || from === '?';
    if (from === undefined || (any && to !== undefined))
      throw wrong(`"${part}" is no ${field.name}`, 'write *, a number, a range such as 1-5, or a step such as */10');
    const first = any ? field.least : readNumber(field, from);
    let last = any || (to === undefined && step !== undefined) ? field.most : readNumber(field, to ?? from);
    if (field === weekday && to !== undefined && last === 0) last = 7;
    if (field === weekday && any) last = 6;
    if (last < first)
      throw wrong(
        `${field.name}: the range "${part}" goes backwards`,
        `write two: ${from}-${field.most},${field.least}-${to}`,
      );
    const stride = step === undefined ? 1 : Number(step);
    if (stride < 1) throw wrong(`${field.name}: a step of 0 never gets on`, 'write a step of at least 1');
    for (let number = first; number <= last; number += stride) numbers.add(number);
  }
  return [...numbers].sort((a, b) => a - b);
}

function readNumber({ name, least, most, names }: Field, text: string): number {
  const named = names.indexOf(text.slice(0, 3));
  if (named >= 0 && text.length === 3) return least + named;
  const number = /^\d+$/.test(text) ? Number(text) : Number.NaN;
  if (number >= least && number <= most) return number;
  throw wrong(
    `"${text}" is no ${name}`,
    names.length > 0
      ? `write ${least} to ${most}, or ${names[0]} to ${names.at(-1)}`
      : `write a number from ${least} to ${most}`,
  );
}

function wrong(message: string, remedy: string): Fault {
  return new Fault('invalid', message, { remedy });
}

function longest(month: number): number {
  return month === 2 ? 29 : [4, 6, 9, 11].includes(month) ? 30 : 31;
}

const dayMs = 86_400_000;
/** Every combination of date and weekday comes within so many years. */
const mostDays = 48 * 366;

/** The first local time that the expression names after `localMs`; both are ms since 1970-01-01 00:00 of that local time. */
export function nextLocalTime(cron: Cron, localMs: number): number | undefined {
  const from = Math.floor(localMs / 1_000) * 1_000 + 1_000;
  let dayNumber = Math.floor(from / dayMs);
  let ofDay = (from - dayNumber * dayMs) / 1_000;
  for (const last = dayNumber + mostDays; dayNumber <= last; ) {
    const date = new Date(dayNumber * dayMs);
    if (!cron.months.has(date.getUTCMonth() + 1)) {
      dayNumber = Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1, 1) / dayMs;
      ofDay = 0;
      continue;
    }
    const time = isNamedDay(cron, date) ? nextTimeOfDay(cron, ofDay) : undefined;
    if (time !== undefined) return dayNumber * dayMs + time * 1_000;
    dayNumber++;
    ofDay = 0;
  }
  return undefined;
}

function isNamedDay({ days, weekdays, eitherDay }: Cron, date: Date): boolean {
  const [byDate, byWeekday] = [days.has(date.getUTCDate()), weekdays.has(date.getUTCDay())];
  return eitherDay ? byDate || byWeekday : byDate && byWeekday;
}

/** The first named second of the day from `least` on. */
function nextTimeOfDay({ hours, minutes, seconds }: Cron, least: number): number | undefined {
  for (const hour of hours) {
    if ((hour + 1) * 3_600 <= least) continue;
    for (const minute of minutes) {
      const start = hour * 3_600 + minute * 60;
      if (start + 60 <= least) continue;
      const second = seconds.find((second) => start + second >= least);
      if (second !== undefined) return start + second;
    }
  }
  return undefined;
}
