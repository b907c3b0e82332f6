/** Publishes logs into JetStream: a message per batch, to `logs.<project>.<service>.<slot>.<taskId>`. */
import { headers } from 'nats';
import { LogBatch } from '#proto/gen/gantry/v1/logs.ts';
import { type Nats, natsFault } from '#proto/nats.ts';
import type { LogSink, ShippedBatch } from './log-sink.ts';

const streams = { stdout: 0, stderr: 1, gap: 2 } as const;

/** Where agents hear the acknowledgements: inboxes of their own, for those of others show what they read (control-plane/beside.ts). */
export const nodeInbox = '_NODE';

/** The subject of a task's log. */
export function logSubject(source: {
  readonly project: string;
  readonly service: string;
  readonly slot: number;
  readonly taskId: string;
}): string {
  return `logs.${source.project}.${source.service}.${source.slot}.${source.taskId}`;
}

/** A sink that keeps batches in the stream LOGS; waits for its acknowledgement. */
export function natsLogSink(parts: { readonly nats: Nats; readonly timeoutMs?: number }): LogSink {
  return {
    async publish(batch) {
      const { source, from } = batch;
      const to = batch.records.reduce((sum, { size }) => sum + size, from);
      const header = headers();
      header.set('Gantry-Node', source.node);
      header.set('Gantry-Node-Id', source.nodeId);
      try {
        await parts.nats
          .connection()
          .jetstream()
          .publish(logSubject(source), encode(batch), {
            msgID: `${source.taskId}:${from}-${to}`,
            headers: header,
            timeout: parts.timeoutMs ?? 5_000,
          });
      } catch (error) {
        throw natsFault(error, `the log of ${source.service}.${source.slot}`);
      }
    },
  };
}

function encode({ from, records }: ShippedBatch): Uint8Array {
  const atUs = records[0]?.atUs ?? 0;
  let last = atUs;
  const encoded = records.map((record) => {
    const deltaUs = record.atUs - last;
    last = record.atUs;
    return { deltaUs, stream: streams[record.stream], partial: record.partial, text: record.text, size: record.size };
  });
  return LogBatch.encode({ from, atUs, records: encoded }).finish();
}
