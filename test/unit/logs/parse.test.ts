/** conmon's format, and what a crash can make of it. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseRecords, parseStamp } from '#node-agent/logs/parse.ts';
import { stamp } from '#test/support/log-writer.ts';

const at = '2026-11-22T05:51:52.816319755+00:00';
const parse = (text: string, max = 100) => parseRecords(Buffer.from(text), 5, max);
const shown = (text: string) =>
  parse(text).records.map(({ stream, partial, text }) => `${stream} ${partial ? 'P' : 'F'} ${text}`);

describe('records', () => {
  it('have a time, a stream, a text and a size, and may go on', () => {
    const { records, consumed } = parse(`${at} stdout F hello world\n${at} stderr P half\n`);
    expect(records).toMatchObject([
      {
        atUs: Date.UTC(2026, 10, 22, 5, 51, 52) * 1000 + 816_319,
        stream: 'stdout',
        partial: false,
        size: at.length + 22,
      },
      { stream: 'stderr', partial: true },
    ]);
    expect(records.map(({ text }) => text.toString())).toEqual(['hello world', 'half']);
    expect(consumed).toBe(records[0]!.size + records[1]!.size);
  });

  it('that are not whole yet are left', () => {
    expect(parse(`${at} stdout F one\n${at} stdout F tw`)).toMatchObject({ consumed: at.length + 14, records: [{}] });
    expect(parse('')).toEqual({ records: [], consumed: 0 });
  });

  it('are no more than asked for', () => {
    expect(parse(`${at} stdout F a\n`.repeat(5), 2).records).toHaveLength(2);
  });

  it('may be empty, or hold spaces and other bytes', () => {
    expect(shown(`${at} stdout F \n${at} stdout F  a  b \n`)).toEqual(['stdout F ', 'stdout F  a  b ']);
    const bytes = Buffer.concat([Buffer.from(`${at} stdout F `), Buffer.from([0xff, 0, 0x80]), Buffer.from('\n')]);
    expect(parseRecords(bytes, 0, 1).records[0]!.text).toEqual(Buffer.from([0xff, 0, 0x80]));
  });

  it('that are torn are kept as text, stamped like the one before', () => {
    const { records } = parse(`${at} stdout F a\n19755+00:00 stdout F b\nxx\n\n`);
    expect(records.map(({ text }) => text.toString())).toEqual(['a', '19755+00:00 stdout F b', 'xx', '']);
    expect(new Set(records.map(({ atUs }) => atUs)).size).toBe(1);
    expect(parse('nothing\n').records[0]!.atUs).toBe(5);
  });

  it('are found whatever the bytes, none lost and none made up', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
        const { records, consumed } = parseRecords(Buffer.from(bytes), 0, 1_000);
        expect(records.reduce((sum, { size }) => sum + size, 0)).toBe(consumed);
        expect(bytes.subarray(consumed)).not.toContain(0x0a);
      }),
    );
  });
});

describe('stamps', () => {
  it.each([
    ['1970-01-01T00:00:00.000001Z', 1],
    ['1970-01-01T00:00:01Z', 1_000_000],
    ['1970-01-01T01:00:00.5+01:00', 500_000],
    ['1969-12-31T19:00:00.000001999-05:00', 1],
  ])('%s is %d µs', (text, us) => expect(parseStamp(text)).toBe(us));

  it.each(['', 'now', '2026-11-22', '2026-11-22T05:51:52', '2026-11-22 05:51:52Z'])('%j is none', (text) =>
    expect(parseStamp(text)).toBeNaN(),
  );

  it('survive being written and read', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 4e15 }), (us) => {
        expect(parseStamp(stamp(us))).toBe(us);
      }),
    );
  });
});
