/** Pure: reads what conmon writes (`k8s-file`): `2026-11-22T05:51:52.816319755+00:00 stdout F text`, P instead of F where the line goes on. */

/** One record of a log file. `size`: bytes it takes there, newline included. `atUs`: microseconds since the epoch. */
export interface FileRecord {
  readonly atUs: number;
  readonly stream: 'stdout' | 'stderr';
  readonly partial: boolean;
  readonly text: Buffer;
  readonly size: number;
}

const newline = 0x0a;
const space = 0x20;

/**
 * The whole records at the start of `bytes`; what follows `consumed` is not whole yet. At most `maxRecords`. A line that is no record (torn
 * by a crash) is kept as text of stdout, stamped like the one before it (`lastUs` for the first).
 */
export function parseRecords(
  bytes: Buffer,
  lastUs: number,
  maxRecords: number,
): { readonly records: readonly FileRecord[]; readonly consumed: number } {
  const records: FileRecord[] = [];
  let consumed = 0;
  let last = lastUs;
  while (records.length < maxRecords) {
    const end = bytes.indexOf(newline, consumed);
    if (end < 0) break;
    const record = parseRecord(bytes.subarray(consumed, end), last);
    records.push(record);
    last = record.atUs;
    consumed = end + 1;
  }
  return { records, consumed };
}

/** One line without its newline; `size` counts the newline. */
export function parseRecord(line: Buffer, lastUs: number): FileRecord {
  const size = line.length + 1;
  const stampEnd = line.indexOf(space);
  const streamEnd = stampEnd < 0 ? -1 : line.indexOf(space, stampEnd + 1);
  const tag = line[streamEnd + 1];
  const atUs = stampEnd < 0 ? Number.NaN : parseStamp(line.toString('latin1', 0, stampEnd));
  const stream = line.toString('latin1', stampEnd + 1, Math.max(streamEnd, 0));
  const isRecord =
    !Number.isNaN(atUs) &&
    (stream === 'stdout' || stream === 'stderr') &&
    (tag === 0x46 || tag === 0x50) &&
    line[streamEnd + 2] === space;
  if (!isRecord) return { atUs: lastUs, stream: 'stdout', partial: false, text: line, size };
  return { atUs, stream, partial: tag === 0x50, text: line.subarray(streamEnd + 3), size };
}

/** RFC 3339 with up to nine decimals, as µs since the epoch; NaN where it is none. */
export function parseStamp(text: string): number {
  const match = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)$/.exec(text);
  if (!match) return Number.NaN;
  const seconds = Date.parse(`${match[1]}${match[3]}`);
  return seconds * 1000 + Number((match[2] ?? '').padEnd(6, '0').slice(0, 6));
}
