/** Stored batches become lines: whole, once, in order. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  LineReader,
  type Sortable,
  SortWindow,
  type StoredBatch,
  type StoredRecord,
} from '#control-plane/logs/merge.ts';

const record = (text: string, fields: Partial<StoredRecord> = {}): StoredRecord => ({
  deltaUs: 1,
  stream: 0,
  partial: false,
  text: Buffer.from(text),
  size: text.length + 1,
  ...fields,
});
const batch = (from: number, records: StoredRecord[], fields: Partial<StoredBatch> = {}): StoredBatch => ({
  project: 'demo',
  service: 'web',
  slot: 1,
  taskId: 't1',
  node: 'h1',
  from,
  atUs: 1_000,
  records,
  ...fields,
});
const texts = (lines: readonly Sortable[]) => lines.map(({ entry }) => entry.text.toString());

describe('a reader', () => {
  it('drops what it has seen, also where batches overlap', () => {
    const reader = new LineReader();
    expect(texts(reader.read(batch(0, [record('a'), record('b')])))).toEqual(['a', 'b']);
    expect(texts(reader.read(batch(0, [record('a'), record('b')])))).toEqual([]);
    expect(texts(reader.read(batch(2, [record('b'), record('c')])))).toEqual(['c']);
    expect(texts(reader.read(batch(0, [record('a')], { taskId: 't2' })))).toEqual(['a']);
  });

  it('puts parts of a line together, per stream, over batches', () => {
    const reader = new LineReader();
    expect(texts(reader.read(batch(0, [record('a', { partial: true }), record('E', { stream: 1 })])))).toEqual(['E']);
    const [line] = reader.read(batch(4, [record('b', { partial: true }), record('c')], { atUs: 9_000 }));
    expect(line!.entry).toMatchObject({ text: Buffer.from('abc'), atUs: 1_001 });
  });

  it('gives a line without end out in pieces', () => {
    const reader = new LineReader();
    const piece = 'x'.repeat(300_000);
    let lines = 0;
    for (let index = 0; index < 8; index++)
      lines += reader.read(batch(index * 300_001, [record(piece, { partial: true })])).length;
    expect(lines).toBe(2);
  });

  it('tells a gap, once, and goes on behind it', () => {
    const reader = new LineReader();
    reader.read(batch(0, [record('a')]));
    const gap = batch(2, [record('lost', { stream: 2, size: 1_000 })]);
    expect(reader.read(gap)[0]!.entry).toMatchObject({ stream: 'gap' });
    expect(reader.read(gap)).toEqual([]);
    expect(texts(reader.read(batch(1_002, [record('b')])))).toEqual(['b']);
    const unknown = batch(5_000_000, [record('lost', { stream: 2, size: 0 })]);
    expect(reader.read(unknown)).toHaveLength(1);
    expect(reader.read(unknown)).toEqual([]);
  });

  it('never sorts a line before an earlier one of its task, even if the clock was set back', () => {
    const reader = new LineReader();
    const [first] = reader.read(batch(0, [record('a')], { atUs: 9_000 }));
    const [second] = reader.read(batch(2, [record('b')], { atUs: 1_000 }));
    expect(second!.keyUs).toBe(first!.keyUs);
    expect(second!.entry.atUs).toBe(1_001);
  });

  it('reads each line once however batches are cut and repeated', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.nat(30), fc.nat(30)), { maxLength: 40 }), (cuts) => {
        const all = Array.from({ length: 31 }, (_, index) => record(String.fromCharCode(65 + index)));
        const reader = new LineReader();
        let reached = 0;
        const seen: string[] = [];
        for (const [start, length] of cuts) {
          // An agent sends again from any earlier point, but never leaves anything out.
          const from = Math.min(start, reached);
          const to = Math.min(all.length, from + length);
          seen.push(...texts(reader.read(batch(from * 2, all.slice(from, to)))));
          reached = Math.max(reached, to);
        }
        expect(seen).toEqual(all.slice(0, reached).map(({ text }) => text.toString()));
      }),
    );
  });
});

describe('a window', () => {
  const line = (keyUs: number, size = 10): Sortable => ({
    keyUs,
    entry: {
      project: '',
      service: '',
      slot: 0,
      taskId: '',
      node: '',
      atUs: keyUs,
      stream: 'stdout',
      text: Buffer.alloc(size),
    },
  });
  const keys = (lines: readonly Sortable[]) => lines.map(({ keyUs }) => keyUs);

  it('sorts all that fits', () => {
    const window = new SortWindow(1e6, 0);
    expect(window.push([line(3), line(1)])).toEqual([]);
    expect(window.push([line(2)])).toEqual([]);
    expect(keys(window.end())).toEqual([1, 2, 3]);
  });

  it('lets the older half go when it is full', () => {
    const window = new SortWindow(700, 0);
    expect(keys(window.push([line(4), line(2), line(1), line(3)]))).toEqual([1, 2]);
    expect(keys(window.end())).toEqual([3, 4]);
  });

  it('keeps the last lines only, however many pass', () => {
    const window = new SortWindow(100, 3);
    for (let key = 0; key < 50_000; key++) expect(window.push([line(key)])).toEqual([]);
    expect(keys(window.end())).toEqual([49_997, 49_998, 49_999]);
  });
});
