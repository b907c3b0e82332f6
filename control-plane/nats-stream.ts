/** JetStream streams as Gantry uses them: kept within limits, read from a point to their end, and on. */
import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerMessages,
  type JsMsg,
  type NatsConnection,
  NatsError,
  nanos,
  RetentionPolicy,
  StorageType,
} from 'nats';
import type { Clock } from '#proto/kernel/clock.ts';
import { Queue } from '#proto/kernel/queue.ts';

export interface StreamLimits {
  readonly maxBytes: number;
  readonly maxAgeMs: number;
}

/** Makes the stream, or brings limits, subjects and the number of servers that keep it up to date. */
export async function ensureStream(
  connection: NatsConnection,
  name: string,
  subjects: string[],
  limits: StreamLimits,
  copies = 1,
): Promise<void> {
  const manager = await connection.jetstreamManager();
  const config = { subjects, max_bytes: limits.maxBytes, max_age: nanos(limits.maxAgeMs), num_replicas: copies };
  try {
    const { config: found } = await manager.streams.info(name);
    if (
      found.max_bytes !== config.max_bytes ||
      found.max_age !== config.max_age ||
      found.num_replicas !== copies ||
      found.subjects.join() !== subjects.join()
    )
      await manager.streams.update(name, config);
  } catch (error) {
    if (!(error instanceof NatsError) || error.api_error?.code !== 404) throw error;
    await manager.streams.add({
      name,
      ...config,
      retention: RetentionPolicy.Limits,
      storage: StorageType.File,
      duplicate_window: nanos(120_000),
    });
  }
}

/** What a stream holds for a subject, and what comes after. */
export interface Backlog {
  /** Ends with the last message that was there when the reading began. */
  history(): AsyncIterable<JsMsg>;
  /** What comes afterwards, gathered for `windowMs`; ends when the signal aborts. */
  live(windowMs: number): AsyncIterable<JsMsg[]>;
  stop(): void;
}

/** How long a history may be silent before it is taken to have ended: retention took the rest. */
const silenceMs = 3_000;

/** Reads a stream from a point on; survives reconnects, in order and without repeats. */
export async function consumeFrom(
  connection: NatsConnection,
  stream: string,
  subject: string,
  start: Pick<Partial<ConsumerConfig>, 'deliver_policy' | 'opt_start_time' | 'opt_start_seq'>,
  options: { readonly follow: boolean; readonly clock: Clock; readonly signal: AbortSignal | undefined },
): Promise<Backlog> {
  const manager = await connection.jetstreamManager();
  const probe = {
    ack_policy: AckPolicy.None,
    filter_subject: subject,
    mem_storage: true,
    inactive_threshold: nanos(5_000),
    ...start,
  };
  const counted = await manager.consumers.add(stream, probe as Partial<ConsumerConfig>);
  void manager.consumers.delete(stream, counted.name).catch(() => {});
  let left = counted.num_pending;
  const queue = new Queue<JsMsg>();
  let messages: ConsumerMessages | undefined;
  const stop = () => {
    messages?.stop();
    queue.end();
  };
  if (left > 0 || options.follow) {
    const consumer = await connection.jetstream().consumers.get(stream, { filterSubjects: subject, ...start });
    messages = await consumer.consume({ max_messages: 500 });
    options.signal?.addEventListener('abort', stop, { once: true });
    if (options.signal?.aborted) stop();
    void pump(messages, queue);
  }
  const reader = queue[Symbol.asyncIterator]();
  return {
    stop() {
      options.signal?.removeEventListener('abort', stop);
      stop();
    },
    async *history() {
      while (left > 0) {
        const timer = options.clock.after(silenceMs, stop);
        const next = await reader.next();
        timer.cancel();
        if (next.done) return;
        left = Math.min(left - 1, next.value.info.pending);
        yield next.value;
      }
    },
    async *live(windowMs) {
      for (;;) {
        const first = await reader.next();
        if (first.done) return;
        await options.clock.sleep(windowMs);
        yield [first.value, ...queue.drain()];
      }
    },
  };
}

async function pump(messages: ConsumerMessages, queue: Queue<JsMsg>): Promise<void> {
  try {
    for await (const message of messages) queue.push(message);
    queue.end();
  } catch (error) {
    queue.end(error);
  }
}
