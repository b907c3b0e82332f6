/** Where shipped logs go. Implementations: nats-log-sink, and a fake in tests. */
import type { LogSource } from './log-shipper.ts';
import type { FileRecord } from './parse.ts';

/** A hole in a log: what was lost, in words. */
export interface GapRecord {
  readonly atUs: number;
  readonly stream: 'gap';
  readonly partial: false;
  readonly text: Buffer;
  /** Bytes that are missing. */
  readonly size: number;
}

export interface ShippedBatch {
  readonly source: LogSource;
  /** Position of the first record in all that the task ever wrote, bytes. */
  readonly from: number;
  readonly records: readonly (FileRecord | GapRecord)[];
}

export interface LogSink {
  /** Resolves when the batch is kept. Fault `unavailable` where that is not known: it is offered again, and readers drop what they have seen. */
  publish(batch: ShippedBatch): Promise<void>;
}
