/** Runs a short program to its end, without fork, and hands back what it said. */
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { waitFor } from './children.ts';
import { toolEnvironment } from './conmon.ts';
import { pipe, spawn } from './libc.ts';

const maxOutputBytes = 64 * 1024;

/** How long it may take. */
export interface Deadline {
  readonly clock: Clock;
  readonly timeoutMs: number;
}

/**
 * Exit code (128 + n for signal n), and stdout and stderr together. Throws CallError where it cannot be executed.
 * Fault `timeout`: it was killed, with what it had started.
 */
export async function runTool(
  path: string,
  args: readonly string[],
  deadline?: Deadline,
): Promise<{ readonly exitCode: number; readonly output: string }> {
  const nothing = openSync('/dev/null', constants.O_RDONLY);
  const output = pipe();
  let pid: number;
  try {
    pid = spawn({ path, args, env: toolEnvironment, fds: [nothing, output.write, output.write] });
  } catch (error) {
    closeSync(output.read);
    throw error;
  } finally {
    closeSync(nothing);
    closeSync(output.write);
  }
  const socket = new Socket({ fd: output.read, readable: true, writable: false });
  let text = '';
  socket.setEncoding('utf8');
  socket.on('data', (chunk: string) => {
    if (text.length < maxOutputBytes) text += chunk;
  });
  const drained = new Promise<void>((resolve) => {
    socket.on('error', () => resolve());
    socket.on('close', () => resolve());
  });
  const ended = waitFor(pid);
  let exitCode: number;
  try {
    exitCode = await (deadline ? within(deadline, pid, ended, [path, ...args].join(' ')) : ended);
  } finally {
    // A grandchild may keep the pipe open for ever: what the program itself wrote is there once it has ended.
    setImmediate(() => setImmediate(() => socket.destroy()));
    await drained;
  }
  return { exitCode, output: text.trim() };
}

/** Its end is not waited for any longer: in uninterruptible sleep it does not come. */
function within({ clock, timeoutMs }: Deadline, pid: number, ended: Promise<number>, line: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const timer = clock.after(timeoutMs, () => {
      // It leads a session of its own, and with it a group.
      process.kill(-pid, 'SIGKILL');
      reject(
        new Fault('timeout', `\`${line}\` did not end within ${timeoutMs / 1000} s and was killed`, {
          remedy: 'see what the host is busy with, and whether its disk answers',
        }),
      );
    });
    void ended.then((exitCode) => {
      timer.cancel();
      resolve(exitCode);
    });
  });
}
