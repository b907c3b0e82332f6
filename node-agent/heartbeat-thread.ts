/** The heartbeat as the main thread holds it: starts the worker thread, aims it, and keeps telling it that the main loop turns. */

import { Worker } from 'node:worker_threads';
import type { TlsIdentity } from '#proto/certificates.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';
import { type Heartbeat, type HeartbeatTarget, loopPeriodMs } from './heartbeat.ts';
import type { HeartbeatData, HeartbeatOrder } from './heartbeat-worker.ts';

/** `identity` is asked at each aim. */
export function heartbeatThread(
  parts: { clock: Clock; log: Log; identity: () => TlsIdentity } & Omit<HeartbeatData, 'loop'>,
): Heartbeat {
  const { clock, log, directory, bootId } = parts;
  const loop = new SharedArrayBuffer(4);
  const turns = new Int32Array(loop);
  const url = new URL('./heartbeat-worker.ts', import.meta.url);
  let listener: (() => void) | undefined;
  let target: HeartbeatTarget | undefined;
  let timer: Timer;
  let closed = false;
  const turn = () => {
    Atomics.add(turns, 0, 1);
    timer = clock.after(loopPeriodMs, turn);
  };
  const order = (): HeartbeatOrder => (target ? { aim: target, identity: parts.identity() } : { aim: undefined });
  const start = (): Worker => {
    // Little memory, and none of the main thread's flags, such as an inspector.
    const thread = new Worker(url, {
      workerData: { loop, directory, bootId } satisfies HeartbeatData,
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: 32, maxYoungGenerationSizeMb: 4 },
    });
    thread.on('message', (message: { silent: number }) => {
      if (target?.session === message.silent) listener?.();
    });
    thread.on('error', (error) => log.error('the heartbeat thread failed', { error }));
    thread.on('exit', () => {
      if (closed) return;
      // Without beats the node's tasks would be moved away: it must run.
      clock.after(100, () => {
        if (closed) return;
        worker = start();
        worker.postMessage(order());
      });
    });
    thread.unref();
    return thread;
  };
  turn();
  let worker = start();
  return {
    aim(next) {
      target = next;
      worker.postMessage(order());
    },
    onSilence(next) {
      listener = next;
    },
    async close() {
      closed = true;
      timer.cancel();
      await worker.terminate();
    },
  };
}
