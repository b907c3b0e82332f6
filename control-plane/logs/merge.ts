/** Pure: from stored batches to lines in order: repeats dropped, long lines made whole, tasks merged by time. */
import type { LogEntry } from './log-store.ts';

/** One stored batch, decoded. */
export interface StoredBatch {
  readonly project: string;
  readonly service: string;
  readonly slot: number;
  readonly taskId: string;
  readonly node: string;
  /** Position of the first record in the task's whole log. */
  readonly from: number;
  readonly atUs: number;
  readonly records: readonly StoredRecord[];
}
export interface StoredRecord {
  readonly deltaUs: number;
  /** 0 stdout, 1 stderr, 2 gap */
  readonly stream: number;
  readonly partial: boolean;
  readonly text: Buffer;
  readonly size: number;
}

/** A line and where it sorts: its time, but never before an earlier line of its task. */
export interface Sortable {
  readonly entry: LogEntry;
  readonly keyUs: number;
}

interface Reading {
  next: number;
  keyUs: number;
  readonly parts: Map<string, { readonly texts: Buffer[]; bytes: number; readonly atUs: number }>;
}

const streams = ['stdout', 'stderr', 'gap'] as const;
const maxLineBytes = 2 ** 20;

/** Remembers, per task, how far its log has been read. */
export class LineReader {
  readonly #tasks = new Map<string, Reading>();

  /** The whole lines that a batch completes. */
  read(batch: StoredBatch): Sortable[] {
    let reading = this.#tasks.get(batch.taskId);
    if (!reading) {
      reading = { next: 0, keyUs: 0, parts: new Map() };
      this.#tasks.set(batch.taskId, reading);
    }
    const lines: Sortable[] = [];
    let position = batch.from;
    let atUs = batch.atUs;
    for (const record of batch.records) {
      atUs += record.deltaUs;
      const known = position < reading.next;
      position += record.size;
      if (known) continue;
      // A gap of unknown size takes no room; it is told once, where its batch begins.
      reading.next = Math.max(reading.next, record.size === 0 ? position + 1 : position);
      const line = whole(reading, record, atUs);
      if (!line) continue;
      reading.keyUs = Math.max(reading.keyUs, line.atUs);
      const { project, service, slot, taskId, node } = batch;
      const stream = streams[record.stream] ?? 'stdout';
      lines.push({
        entry: { project, service, slot, taskId, node, atUs: line.atUs, stream, text: line.text },
        keyUs: reading.keyUs,
      });
    }
    return lines;
  }
}

function whole(
  reading: Reading,
  record: StoredRecord,
  atUs: number,
): { readonly atUs: number; readonly text: Buffer } | undefined {
  const stream = String(record.stream);
  const begun = reading.parts.get(stream);
  if (!begun && !record.partial) return { atUs, text: record.text };
  const parts = begun ?? { texts: [], bytes: 0, atUs };
  parts.texts.push(record.text);
  parts.bytes += record.text.length;
  if (record.partial && parts.bytes < maxLineBytes) {
    reading.parts.set(stream, parts);
    return undefined;
  }
  reading.parts.delete(stream);
  return { atUs: parts.atUs, text: Buffer.concat(parts.texts) };
}

/** Sorts by key, keeping the order of arrival among equals. */
export function sortLines(lines: Sortable[]): Sortable[] {
  return lines.sort((a, b) => a.keyUs - b.keyUs);
}

/**
 * Lines of a long history, sorted through a window of `windowBytes`: as much is held as fits, and the older half goes out when it is full.
 * With `tail`, only the last lines are held, and all come out at the end.
 */
export class SortWindow {
  #held: Sortable[] = [];
  #bytes = 0;
  readonly #windowBytes: number;
  readonly #tail: number;

  constructor(windowBytes: number, tail: number) {
    this.#windowBytes = windowBytes;
    this.#tail = tail;
  }

  /** Takes lines; returns those that are ready to go. */
  push(lines: readonly Sortable[]): readonly Sortable[] {
    for (const line of lines) {
      this.#held.push(line);
      this.#bytes += sizeOf(line);
    }
    if (this.#tail > 0) {
      if (this.#held.length > this.#tail * 2 + 10_000) this.#keep(sortLines(this.#held).slice(-this.#tail));
      return [];
    }
    if (this.#bytes <= this.#windowBytes) return [];
    sortLines(this.#held);
    const ready = this.#held.slice(0, this.#held.length >> 1);
    this.#keep(this.#held.slice(ready.length));
    return ready;
  }

  /** What is left, in order. */
  end(): readonly Sortable[] {
    const rest = sortLines(this.#held);
    this.#keep([]);
    return this.#tail > 0 ? rest.slice(-this.#tail) : rest;
  }

  #keep(lines: Sortable[]): void {
    this.#held = lines;
    this.#bytes = lines.reduce((sum, line) => sum + sizeOf(line), 0);
  }
}

function sizeOf({ entry }: Sortable): number {
  return entry.text.length + 200;
}
