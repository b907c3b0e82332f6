/** `LogStore` over the JetStream stream LOGS, into which agents publish. */
import { DeliverPolicy, ErrorCode, type JsMsg, type NatsConnection, NatsError } from 'nats';
import { LogBatch } from '#proto/gen/gantry/v1/logs.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { type Nats, natsFault } from '#proto/nats.ts';
import { type Backlog, consumeFrom, ensureStream, type StreamLimits } from '../nats-stream.ts';
import type { LogEntry, LogQuery, LogStore } from './log-store.ts';
import { LineReader, type Sortable, SortWindow, type StoredBatch, sortLines } from './merge.ts';

export interface LogStoreParts {
  readonly nats: Nats;
  readonly clock: Clock;
  /** How much is kept, and how long. Default 1 GiB, 7 days. */
  readonly limits?: StreamLimits;
  /** Servers of NATS that keep each line; 1 unless told. */
  readonly copies?: number;
}

export const logStreamName = 'LOGS';
const defaultLimits: StreamLimits = { maxBytes: 2 ** 30, maxAgeMs: 7 * 24 * 3_600_000 };
/** Lines wait this long for older ones of other tasks, when following. */
const reorderMs = 100;
const windowBytes = 32 * 2 ** 20;
/** Batches are stored after their lines were written, by clocks that may differ. */
const clockSlackMs = 60_000;

/** Makes the stream, or sets its limits, whenever NATS is there (again): its disk may have been lost. Reads before that are refused. */
export function logStore(parts: LogStoreParts): LogStore {
  const limits = parts.limits ?? defaultLimits;
  let ready: Promise<void> | undefined;
  const prepare = (connection: NatsConnection) => {
    ready ??= ensureStream(connection, logStreamName, ['logs.>'], limits, parts.copies).catch((error) => {
      ready = undefined;
      throw error;
    });
    return ready;
  };
  parts.nats.onConnect((connection) => {
    ready = undefined;
    prepare(connection).catch(() => {});
  });
  return {
    async *read(query) {
      const connection = parts.nats.connection();
      try {
        // Where the stream cannot be looked at just now, it may be read all the same.
        await prepare(connection).catch((error) => {
          if (!(error instanceof NatsError) || error.code !== ErrorCode.Timeout) throw error;
        });
        yield* readLines(connection, query, parts.clock);
      } catch (error) {
        if (query.signal?.aborted) return;
        throw natsFault(error, `the log of ${query.project}/${query.service}`);
      }
    },
  };
}

/** What a query's batches are published under. */
export function subjectOf(query: LogQuery): string {
  return `logs.${query.project}.${query.service}.${query.slot && !query.taskId ? query.slot : '*'}.${query.taskId ?? '*'}`;
}

async function* readLines(connection: NatsConnection, query: LogQuery, clock: Clock): AsyncGenerator<LogEntry> {
  const sinceMs = query.sinceMs ?? 0;
  const start =
    sinceMs > 0
      ? { deliver_policy: DeliverPolicy.StartTime, opt_start_time: new Date(sinceMs - clockSlackMs).toISOString() }
      : {};
  const backlog = await consumeFrom(connection, logStreamName, subjectOf(query), start, {
    follow: query.follow ?? false,
    clock,
    signal: query.signal,
  });
  const reader = new LineReader();
  const lines = (message: JsMsg) => reader.read(decode(message)).filter(({ entry }) => entry.atUs >= sinceMs * 1000);
  try {
    const window = new SortWindow(windowBytes, query.tail ?? 0);
    for await (const message of backlog.history()) for (const { entry } of window.push(lines(message))) yield entry;
    for (const { entry } of window.end()) yield entry;
    if (query.follow) yield* follow(backlog, lines);
  } finally {
    backlog.stop();
  }
}

async function* follow(backlog: Backlog, lines: (message: JsMsg) => Sortable[]): AsyncGenerator<LogEntry> {
  for await (const messages of backlog.live(reorderMs))
    for (const { entry } of sortLines(messages.flatMap(lines))) yield entry;
}

function decode(message: JsMsg): StoredBatch {
  const [, project = '', service = '', slot = '0', taskId = ''] = message.subject.split('.');
  const { from, atUs, records } = LogBatch.decode(message.data);
  return {
    project,
    service,
    slot: Number(slot),
    taskId,
    node: message.headers?.get('Gantry-Node') ?? '',
    from,
    atUs,
    records,
  };
}
