/** What cron expressions mean, and what is none. */
import { describe, expect, it } from 'vitest';
import { isFault } from '#proto/kernel/errors.ts';
import { Zones } from '#proto/model/calendar.ts';

const zones = new Zones();

/** The first instants after one, in ISO form to the minute, or to the second where that is not 0. */
function due(cron: string, timezone: string, after: string, count = 3): string[] {
  const calendar = zones.calendar(cron, timezone);
  const instants: string[] = [];
  for (let at = Date.parse(after); instants.length < count; ) {
    at = calendar.next(at)!;
    instants.push(new Date(at).toISOString().replace(/(:00)?\.000Z$/, ''));
  }
  return instants;
}

function problem(cron: string, timezone = ''): string {
  try {
    zones.calendar(cron, timezone);
    return 'none';
  } catch (error) {
    if (!isFault(error, 'invalid')) throw error;
    return `${error.message} → ${error.remedy}`;
  }
}

describe('cron expressions', () => {
  it.each([
    ['*/20 * * * *', '2026-01-01T00:20 2026-01-01T00:40 2026-01-01T01:00'],
    ['*/2 * * * * *', '2026-01-01T00:00:02 2026-01-01T00:00:04 2026-01-01T00:00:06'],
    ['5,10-12 4 * * *', '2026-01-01T04:05 2026-01-01T04:10 2026-01-01T04:11'],
    ['50/5 4 * * *', '2026-01-01T04:50 2026-01-01T04:55 2026-01-02T04:50'],
    ['0 0 * FEB-mar Mon', '2026-02-02T00:00 2026-02-09T00:00 2026-02-16T00:00'],
    ['0 0 * * 7', '2026-01-04T00:00 2026-01-11T00:00 2026-01-18T00:00'],
    ['0 0 * * sat-sun', '2026-01-03T00:00 2026-01-04T00:00 2026-01-10T00:00'],
    ['0 0 ? * 5-7', '2026-01-02T00:00 2026-01-03T00:00 2026-01-04T00:00'],
    ['0 0 31 * *', '2026-01-31T00:00 2026-03-31T00:00 2026-05-31T00:00'],
    ['0 0 29 2 *', '2028-02-29T00:00 2032-02-29T00:00 2036-02-29T00:00'],
    ['@hourly', '2026-01-01T01:00 2026-01-01T02:00 2026-01-01T03:00'],
    ['@weekly', '2026-01-04T00:00 2026-01-11T00:00 2026-01-18T00:00'],
    ['@yearly', '2027-01-01T00:00 2028-01-01T00:00 2029-01-01T00:00'],
  ])('%s', (cron, instants) => {
    expect(due(cron, '', '2026-01-01T00:00Z').join(' ')).toBe(instants);
  });

  it('takes either of day of month and day of week where both are named, and both where one begins with *', () => {
    expect(due('0 0 13 * fri', '', '2026-01-01T00:00Z')).toEqual([
      '2026-01-02T00:00',
      '2026-01-09T00:00',
      '2026-01-13T00:00',
    ]);
    expect(due('0 0 */2 * fri', '', '2026-01-01T00:00Z')).toEqual([
      '2026-01-09T00:00',
      '2026-01-23T00:00',
      '2026-02-13T00:00',
    ]);
  });

  it.each([
    ['', '"" has no fields → write [SECOND] MINUTE HOUR DAY MONTH WEEKDAY, such as */5 * * * *'],
    ['* * *', '"* * *" has 3 fields → write [SECOND] MINUTE HOUR DAY MONTH WEEKDAY, such as */5 * * * *'],
    ['60 * * * *', '"60" is no minute → write a number from 0 to 59'],
    ['* * * * fry', '"fry" is no day of week → write 0 to 7, or sun to sat'],
    ['* * 0 * *', '"0" is no day of month → write a number from 1 to 31'],
    ['*/0 * * * *', 'minute: a step of 0 never gets on → write a step of at least 1'],
    ['30-10 * * * *', 'minute: the range "30-10" goes backwards → write two: 30-59,0-10'],
    ['*-3 * * * *', '"*-3" is no minute → write *, a number, a range such as 1-5, or a step such as */10'],
    ['* * L * *', '"l" is no day of month → write a number from 1 to 31'],
    ['0 0 30 2 *', '"0 0 30 2 *" names a day that no year has → choose a day that the month has'],
    [
      '@reboot',
      '"@reboot" is no schedule → use one of @yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly',
    ],
  ])('refuses "%s"', (cron, words) => {
    expect(problem(cron)).toBe(words);
  });

  it('refuses a zone that is none', () => {
    expect(problem('@daily', 'Europe/Berlim')).toBe(
      '"Europe/Berlim" is no time zone → write its name, such as Europe/Berlin, or UTC',
    );
  });
});

describe('days on which clocks are set', () => {
  it('runs what was named by hour and minute when the clock is set forward over it', () => {
    expect(due('30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00Z', 2)).toEqual([
      '2026-03-29T01:00',
      '2026-03-30T00:30',
    ]);
    expect(due('0,30 2 * * *', 'Europe/Berlin', '2026-03-28T12:00Z', 2)).toEqual([
      '2026-03-29T01:00',
      '2026-03-30T00:00',
    ]);
  });

  it('runs it once where the clock shows it twice', () => {
    expect(due('30 1 * * *', 'America/New_York', '2026-10-31T12:00Z', 2)).toEqual([
      '2026-11-01T05:30',
      '2026-11-02T06:30',
    ]);
  });

  it('goes by what the clock shows where minute or hour is *', () => {
    expect(due('*/30 * * * *', 'Europe/Berlin', '2026-03-29T00:15Z')).toEqual([
      '2026-03-29T00:30',
      '2026-03-29T01:00',
      '2026-03-29T01:30',
    ]);
    expect(due('*/30 2 * * *', 'Europe/Berlin', '2026-10-24T23:15Z', 4)).toEqual([
      '2026-10-25T00:00',
      '2026-10-25T00:30',
      '2026-10-25T01:00',
      '2026-10-25T01:30',
    ]);
  });

  it('knows zones whose clocks are set by half an hour', () => {
    expect(due('15 2 * * *', 'Australia/Lord_Howe', '2026-10-03T00:00Z', 2)).toEqual([
      '2026-10-03T15:30',
      '2026-10-04T15:15',
    ]);
  });
});
