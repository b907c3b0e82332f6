/** Waits for children started by `libc.spawn`: libuv reaps only its own, so these are asked for at each SIGCHLD. */
import { MessageChannel } from 'node:worker_threads';
import { reap } from './libc.ts';

/** Children belong to the process, and so does this. */
const waiting = new Map<number, (status: number) => void>();
/** A listener for signals does not keep the event loop alive; an open port does. */
let alive: MessageChannel | undefined;

function reapAll(): void {
  for (const [pid, resolve] of waiting) {
    const status = reap(pid);
    if (status === undefined) continue;
    waiting.delete(pid);
    resolve(status);
  }
  if (waiting.size > 0 || !alive) return;
  process.off('SIGCHLD', reapAll);
  alive.port1.close();
  alive = undefined;
}

/** Resolves when the child has ended: its exit code, or 128 + n for signal n. To be called once for each child. */
export function waitFor(pid: number): Promise<number> {
  return new Promise((resolve) => {
    waiting.set(pid, resolve);
    if (!alive) {
      process.on('SIGCHLD', reapAll);
      alive = new MessageChannel();
      alive.port1.on('message', () => {});
    }
    reapAll();
  });
}
