/** Which bounds are in force when. */
import { expect, it } from 'vitest';
import { scheduledRange } from '#control-plane/reconcilers/scheduled-range.ts';
import { Zones } from '#proto/model/calendar.ts';
import { anAutoscale } from '#test/support/builders.ts';

const zones = new Zones();
const at = (text: string) => Date.parse(text);
const office = anAutoscale({
  min: 1,
  max: 5,
  schedule: [
    { cron: '0 8 * * 1-5', timezone: 'Europe/Berlin', min: 4, max: 20 },
    { cron: '0 18 * * 1-5', timezone: 'Europe/Berlin', min: 0, max: 5 },
  ],
});

it('without a schedule they are those of the service, for ever', () => {
  expect(scheduledRange(anAutoscale({ min: 2, max: 9 }), zones, at('2026-11-27T12:00:00Z'))).toEqual({
    range: { min: 2, max: 9, cron: '' },
    untilMs: Number.POSITIVE_INFINITY,
  });
});

it('those of the entry that was due last are in force until the next one is', () => {
  // A Friday; Berlin is an hour ahead.
  expect(scheduledRange(office, zones, at('2026-11-27T07:00:00Z'))).toEqual({
    range: { min: 4, max: 20, cron: '0 8 * * 1-5' },
    untilMs: at('2026-11-27T17:00:00Z'),
  });
  expect(scheduledRange(office, zones, at('2026-11-27T06:59:59Z')).range).toMatchObject({ min: 0, max: 5 });
});

it('a weekend has those of its Friday evening', () => {
  expect(scheduledRange(office, zones, at('2026-11-29T12:00:00Z'))).toEqual({
    range: { min: 0, max: 5, cron: '0 18 * * 1-5' },
    untilMs: at('2026-11-30T07:00:00Z'),
  });
});

it('of entries that are due at once the last one counts', () => {
  const both = anAutoscale({
    schedule: [
      { cron: '@daily', timezone: '', min: 2, max: 3 },
      { cron: '0 0 * * *', timezone: 'UTC', min: 7, max: 8 },
    ],
  });
  expect(scheduledRange(both, zones, at('2026-11-27T12:00:00Z')).range).toMatchObject({ min: 7, max: 8 });
});
