/** Runs a short program to its end, without fork, and hands back what it said. */
import { closeSync, constants, openSync } from 'node:fs';
import { Socket } from 'node:net';
import { waitFor } from './children.ts';
import { toolEnvironment } from './conmon.ts';
import { pipe, spawn } from './libc.ts';

const maxOutputBytes = 64 * 1024;

/** Exit code (128 + n for signal n), and stdout and stderr together. Throws CallError where it cannot be executed. */
export async function runTool(
  path: string,
  args: readonly string[],
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
  const exitCode = await waitFor(pid);
  // A grandchild may keep the pipe open for ever: what the program itself wrote is there once it has ended.
  setImmediate(() => setImmediate(() => socket.destroy()));
  await drained;
  return { exitCode, output: text.trim() };
}
