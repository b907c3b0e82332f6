/** Serves one relay that the control plane asked for: exec, stats, a log straight from disk, or the doctor's probes. */
import type { Network } from '#net/network.ts';
import type { OpenRelay } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { describe, Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { type TaskId, taskId } from '#proto/model/ids.ts';
import type { Runtime } from '../runtime/runtime.ts';
import type { ProbeRecord } from '../task/health.ts';
import { type RelayStream, serveExec } from './exec.ts';
import { serveProbe } from './probe.ts';

export interface RelayParts {
  readonly runtime: Runtime;
  readonly network: Pick<Network, 'examine'>;
  readonly clock: Clock;
  readonly log: Log;
  /** Tasks that run here. */
  readonly tasks: () => readonly TaskId[];
  /** The last results of a task's health check, oldest first. */
  readonly checks: (task: TaskId) => readonly ProbeRecord[];
  /** Deletes a named volume and its data. Fault `conflict` where a task uses it. */
  readonly removeVolume: (name: string) => Promise<void>;
  /** The task's log as conmon wrote it, oldest first, from `sinceMs` on; ends at its end. */
  readonly readLog: (task: TaskId, sinceMs: number) => AsyncIterable<Uint8Array>;
}

/** Never rejects: what goes wrong is the stream's last frame, in words. */
export async function serveRelay(parts: RelayParts, open: OpenRelay, stream: RelayStream): Promise<void> {
  stream.send({ body: { $case: 'relayId', value: open.relayId } });
  try {
    switch (open.request?.$case) {
      case 'exec':
        await serveExec(parts, open.request.value, stream);
        break;
      case 'stats':
        await serveStats(parts, open.request.value.taskIds.map(taskId), stream);
        break;
      case 'logs':
        await serveLog(parts, taskId(open.request.value.taskId), open.request.value.sinceMs, stream);
        break;
      case 'probe':
        await serveProbe(parts.network, open.request.value, stream);
        break;
      case 'checks':
        stream.listen({ message() {}, closed() {} });
        for (const value of parts.checks(taskId(open.request.value.taskId)))
          stream.send({ body: { $case: 'check', value: { ...value } } });
        break;
      case 'removeVolume':
        stream.listen({ message() {}, closed() {} });
        await parts.removeVolume(open.request.value.name);
        parts.log.info('a volume was deleted, as asked', { why: open.request.value.name });
        break;
      default:
        throw new Fault('unsupported', 'this agent does not know that kind of relay', { remedy: 'upgrade the agent' });
    }
  } catch (error) {
    parts.log.info('relay ended with an error', { why: describe(error) });
    stream.send({ body: { $case: 'error', value: describe(error) } });
  }
  stream.close();
}

/** One frame for each task that can be measured. */
async function serveStats(parts: RelayParts, wanted: readonly TaskId[], stream: RelayStream): Promise<void> {
  stream.listen({ message() {}, closed() {} });
  const running = parts.tasks();
  const tasks = wanted.length > 0 ? wanted.filter((id) => running.includes(id)) : running;
  for (const id of tasks) {
    try {
      const stats = await parts.runtime.stats(id);
      stream.send({ body: { $case: 'stats', value: { taskId: id, atMs: parts.clock.now(), ...stats } } });
    } catch (error) {
      // It ended while we looked: the others still count.
      parts.log.debug('no statistics', { task: id, why: describe(error) });
    }
  }
}

/** The file's bytes, as frames of stdout; as fast as the reader takes them. */
async function serveLog(parts: RelayParts, task: TaskId, sinceMs: number, stream: RelayStream): Promise<void> {
  let wake: (() => void) | undefined;
  let gone = false;
  stream.listen({
    message() {},
    drain: () => wake?.(),
    closed() {
      gone = true;
      wake?.();
    },
  });
  for await (const chunk of parts.readLog(task, sinceMs)) {
    if (gone) return;
    if (stream.send({ body: { $case: 'stdout', value: chunk as Buffer } })) continue;
    await new Promise<void>((resolve) => {
      wake = resolve;
    });
  }
}
