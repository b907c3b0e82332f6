/** JetStream streams as Gantry uses them: kept within limits, read from a point to their end, and on. */
import {
  AckPolicy,
  type ConsumerConfig,
  type ConsumerInfo,
  type ConsumerMessages,
  DeliverPolicy,
  ErrorCode,
  type JetStreamManager,
  type JsMsg,
  type NatsConnection,
  NatsError,
  nanos,
  RetentionPolicy,
  StorageType,
} from 'nats';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
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

/** Silent for so long, a consumer is taken to be lost, or retention to have taken what it had to say: another one tells. */
const silenceMs = { history: 3_000, live: 10_000 } as const;
/** Consumers in a row that promise messages and bring none. */
const mostSilent = 3;
/** Without an answer for so long another consumer is asked for as well: JetStream gives them to servers that it does not know to be off. */
const headStartMs = 400;
const mostAsked = 20;

type Start = Pick<Partial<ConsumerConfig>, 'deliver_policy' | 'opt_start_time' | 'opt_start_seq'>;

/** Reads a stream from a point on; survives reconnects and servers that are off, in order and without repeats. */
export async function consumeFrom(
  connection: NatsConnection,
  stream: string,
  subject: string,
  start: Start,
  options: { readonly follow: boolean; readonly clock: Clock; readonly signal: AbortSignal | undefined },
): Promise<Backlog> {
  const { clock, follow, signal } = options;
  const manager = await connection.jetstreamManager({ checkAPI: false });
  const place = (from: Start) => placed(manager, clock, stream, { filter_subject: subject, ...from });
  const first = await place(start);
  let left = first.num_pending;
  /** Undefined: what was there at the beginning has all been told. */
  const queue = new Queue<JsMsg | undefined>();
  let messages: ConsumerMessages | undefined;
  let stopped = false;
  const stop = () => {
    stopped = true;
    messages?.stop();
    queue.end();
  };
  const watch = () => clock.after(left > 0 ? silenceMs.history : silenceMs.live, () => messages?.stop());
  /** One consumer after the other, each from where the last one broke off. */
  const pump = async () => {
    let last = 0;
    let silent = 0;
    for (let info = first; ; ) {
      const consumer = await connection.jetstream().consumers.get(stream, info.name);
      messages = await consumer.consume({ max_messages: 500 });
      if (stopped) messages.stop();
      let timer = watch();
      let delivered = 0;
      for await (const message of messages) {
        timer.cancel();
        // Sent, and lost with a connection: it is asked for again.
        if (message.info.deliverySequence !== ++delivered) break;
        last = message.seq;
        queue.push(message);
        timer = watch();
      }
      timer.cancel();
      messages.stop();
      remove(manager, stream, info);
      if (stopped) return;
      silent = delivered > 0 ? 0 : silent + 1;
      if (left > 0 && silent === mostSilent) throw NatsError.errorForCode(ErrorCode.Timeout);
      info = await place(last > 0 ? { deliver_policy: DeliverPolicy.StartSequence, opt_start_seq: last + 1 } : start);
      if (left > 0 && info.num_pending === 0) queue.push(undefined);
    }
  };
  if (left > 0 || follow) {
    signal?.addEventListener('abort', stop, { once: true });
    if (signal?.aborted) stop();
    pump().catch((error) => queue.end(error));
  } else remove(manager, stream, first);
  const reader = queue[Symbol.asyncIterator]();
  return {
    stop() {
      signal?.removeEventListener('abort', stop);
      stop();
    },
    async *history() {
      while (left > 0) {
        const { done, value } = await reader.next();
        if (done) return;
        left = value ? Math.min(left - 1, value.info.pending) : 0;
        if (value) yield value;
      }
    },
    async *live(windowMs) {
      for (;;) {
        const { done, value } = await reader.next();
        if (done) return;
        await clock.sleep(windowMs);
        yield [value, ...queue.drain()].filter((message) => message !== undefined);
      }
    },
  };
}

/** A consumer at a server that answers. */
function placed(
  manager: JetStreamManager,
  clock: Clock,
  stream: string,
  config: Start & Pick<ConsumerConfig, 'filter_subject'>,
): Promise<ConsumerInfo> {
  const { promise, resolve, reject } = Promise.withResolvers<ConsumerInfo>();
  const wanted = { ack_policy: AckPolicy.None, mem_storage: true, inactive_threshold: nanos(5_000), ...config };
  let found = false;
  let asked = 0;
  let failed = 0;
  let next: Timer | undefined;
  const ask = () => {
    asked++;
    next = asked < mostAsked ? clock.after(headStartMs, ask) : undefined;
    manager.consumers.add(stream, wanted as Partial<ConsumerConfig>).then(
      (info) => {
        next?.cancel();
        if (found) remove(manager, stream, info);
        found = true;
        resolve(info);
      },
      (error) => {
        failed++;
        const waits = error instanceof NatsError && error.code === ErrorCode.Timeout && failed < mostAsked;
        if (waits || found) return;
        next?.cancel();
        reject(error);
      },
    );
  };
  ask();
  return promise;
}

/** It would go by itself, a little later. */
function remove(manager: JetStreamManager, stream: string, { name }: ConsumerInfo): void {
  manager.consumers.delete(stream, name).catch(() => {});
}
