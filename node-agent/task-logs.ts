/** The log files of this node's tasks: where they lie, how they are read here, and their way to NATS once the cluster has said where that is. */
import { createReadStream, existsSync } from 'node:fs';
import { rm, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { LogCounts } from './logs/log-shipper.ts';
import type { LogSink } from './logs/log-sink.ts';
import { parseStamp } from './logs/parse.ts';
import { logShipper } from './logs/ship.ts';
import type { TaskLogs } from './worker.ts';

export interface TaskLogsParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  /** The agent's data directory: `logs/` and `log-positions/` are made in it. */
  readonly data: string;
  readonly reopen: (task: TaskId) => Promise<void>;
  /** What the logs of ended tasks may take while NATS is away; 1 GiB or a tenth of the disk, whichever is less, where absent. */
  readonly endedLogsBytes?: number | undefined;
  /** Opens the way to the NATS server at the URL; called once. */
  readonly open: (natsUrl: string) => LogSink & { close(): Promise<void> };
}

export type ShippedTaskLogs = TaskLogs & {
  /** The task's lines as conmon wrote them, oldest first, those stamped before `sinceMs` left out. */
  read(task: TaskId, sinceMs: number): AsyncIterable<Uint8Array>;
  readonly counts: () => LogCounts;
  /** What is not shipped is shipped by the next agent. */
  close(): Promise<void>;
};

export async function taskLogs(parts: TaskLogsParts): Promise<ShippedTaskLogs> {
  const directory = (task: TaskId) => join(parts.data, 'logs', task);
  const path = (task: TaskId) => join(directory(task), 'current.log');
  let sink: (LogSink & { close(): Promise<void> }) | undefined;
  const stopping = new AbortController();
  const shipper = await logShipper({
    clock: parts.clock,
    random: parts.random,
    log: parts.log,
    directory: join(parts.data, 'log-positions'),
    reopen: parts.reopen,
    limits: { endedBytes: parts.endedLogsBytes ?? (await shareOfDisk(parts.data)) },
    sink: {
      async publish(batch) {
        if (!sink) throw new Fault('unavailable', 'the cluster has not said yet where logs go');
        await sink.publish(batch);
      },
    },
  });
  return {
    path,
    counts: () => shipper.counts,
    follow({ task, template }, { node, cluster }) {
      const { logging } = template.container;
      if (cluster.natsUrl === '' || logging.driver === 'none') return;
      sink ??= parts.open(cluster.natsUrl);
      shipper.follow({
        taskId: task.id,
        project: task.project,
        service: task.serviceName,
        slot: task.slot,
        nodeId: node.id,
        node: node.name,
        path: path(task.id),
        maxBytes: logging.maxSizeBytes,
      });
    },
    async drop(task) {
      try {
        if (sink) await shipper.ended(task, { signal: stopping.signal });
      } catch (error) {
        stopping.signal.throwIfAborted();
        parts.log.error('the rest of a log is lost: it could not be read', { task, error });
      }
      await shipper.forget(task);
      await rm(directory(task), { recursive: true, force: true });
    },
    async *read(task, sinceMs) {
      // What was rotated away is older.
      for (const file of [`${path(task)}.1`, path(task)]) {
        if (!existsSync(file)) continue;
        yield* since(createReadStream(file), sinceMs * 1_000);
      }
    },
    async close() {
      stopping.abort(new Fault('cancelled', 'the agent is stopping'));
      await shipper.close();
      await sink?.close();
    },
  };
}

async function shareOfDisk(path: string): Promise<number> {
  const { blocks, bsize } = await statfs(path);
  return Math.min(2 ** 30, Math.floor((blocks * bsize) / 10));
}

const newline = 0x0a;

/** The stream from its first line stamped `sinceUs` or later; lines are in the order of time. */
async function* since(stream: AsyncIterable<Buffer>, sinceUs: number): AsyncGenerator<Buffer> {
  let held: Buffer | undefined = Buffer.alloc(0);
  for await (const chunk of stream) {
    if (!held) {
      yield chunk;
      continue;
    }
    let rest: Buffer = Buffer.concat([held, chunk]);
    for (let end = rest.indexOf(newline); end >= 0; end = rest.indexOf(newline)) {
      const stamp = parseStamp(rest.toString('latin1', 0, rest.indexOf(' ')));
      if (!(stamp < sinceUs)) break;
      rest = rest.subarray(end + 1);
    }
    const found = rest.indexOf(newline) >= 0;
    if (found) yield rest;
    held = found ? undefined : rest;
  }
}
