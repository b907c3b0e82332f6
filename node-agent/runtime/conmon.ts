/** Starts conmon, which creates the container, holds its output, writes its log and, in the end, its exit code. */
import { closeSync, constants, openSync, readFileSync, writeSync } from 'node:fs';
import { Socket } from 'node:net';
import { join } from 'node:path';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { waitFor } from './children.ts';
import { pipe, spawn } from './libc.ts';

export interface ConmonRequest {
  readonly conmonPath: string;
  readonly runtimePath: string;
  readonly runtimeRoot: string;
  readonly id: string;
  readonly bundle: string;
  readonly exitsDirectory: string;
  /** Empty: its output is not kept. */
  readonly logPath: string;
  readonly terminal: boolean;
  readonly stdinOpen: boolean;
}

/** Names of the files conmon keeps in the bundle. */
export const conmonFiles = {
  pid: 'pid',
  conmonPid: 'conmon.pid',
  log: 'conmon.log',
  control: 'ctl',
  oom: 'oom',
} as const;

/** The agent rotates logs; conmon deletes what is older than this only where no agent does. */
const logCeilingBytes = 1 << 30;
const createTimeoutMs = 60_000;
export const toolEnvironment = ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'LC_ALL=C.UTF-8'];

/**
 * Creates the container; resolves to the pid of its first process, which waits to be started.
 * Faults: `invalid` (the runtime refused, in its words), `unavailable` (conmon failed), `timeout`.
 */
export async function createByConmon(request: ConmonRequest, clock: Clock): Promise<number> {
  const answer = pipe();
  let pid: number;
  const nothing = openSync('/dev/null', constants.O_RDWR);
  const messages = openSync(join(request.bundle, conmonFiles.log), 'w', 0o600);
  try {
    pid = spawn({
      path: request.conmonPath,
      args: conmonArgs(request),
      env: [...toolEnvironment, '_OCI_SYNCPIPE=3'],
      cwd: request.bundle,
      fds: [nothing, nothing, messages, answer.write],
    });
  } catch (error) {
    closeSync(answer.read);
    throw new Fault('unavailable', `conmon could not be started: ${(error as Error).message}`, {
      cause: error,
      remedy: `install conmon as ${request.conmonPath}`,
    });
  } finally {
    closeSync(nothing);
    closeSync(messages);
    closeSync(answer.write);
  }
  const ended = waitFor(pid);
  const line = await readAnswer(answer.read, clock);
  await ended;
  return parseAnswer(line, () => readFileSync(join(request.bundle, conmonFiles.log), 'utf8'));
}

function conmonArgs(request: ConmonRequest): string[] {
  return [
    ...['--cid', request.id, '--cuuid', request.id, '--name', request.id],
    ...['--runtime', request.runtimePath, '--runtime-arg', `--root=${request.runtimeRoot}`],
    ...['--bundle', request.bundle, '--persist-dir', request.bundle, '--exit-dir', request.exitsDirectory],
    ...['--log-path', request.logPath === '' ? 'none' : `k8s-file:${request.logPath}`],
    ...['--log-size-max', String(logCeilingBytes), '--no-sync-log'],
    ...['--container-pidfile', join(request.bundle, conmonFiles.pid)],
    ...['--conmon-pidfile', join(request.bundle, conmonFiles.conmonPid)],
    ...['--full-attach', '--log-level', 'error'],
    ...(request.terminal ? ['--terminal'] : []),
    ...(request.stdinOpen ? ['--stdin', '--leave-stdin-open'] : []),
  ];
}

/** One line; conmon holds the pipe open for as long as it lives, so its end is not waited for. */
function readAnswer(fd: number, clock: Clock): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = new Socket({ fd, readable: true, writable: false });
    let text = '';
    const finish = (settle: () => void) => {
      timer.cancel();
      socket.destroy();
      settle();
    };
    const timer = clock.after(createTimeoutMs, () =>
      finish(() =>
        reject(new Fault('timeout', `the runtime did not create the container within ${createTimeoutMs} ms`)),
      ),
    );
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      text += chunk;
      if (text.includes('\n')) finish(() => resolve(text));
    });
    socket.on('error', (error) => finish(() => reject(error)));
    socket.on('end', () => finish(() => resolve(text)));
  });
}

/** `{"pid":N}`, or `{"pid":-1,"message":…}`; nothing at all where conmon itself failed, whose words are then in its log. */
export function parseAnswer(line: string, conmonLog: () => string): number {
  if (line.trim() === '') {
    throw new Fault('unavailable', `conmon failed: ${conmonLog().trim().slice(-500) || 'it said nothing'}`);
  }
  const answer = JSON.parse(line) as { readonly pid?: number; readonly data?: number; readonly message?: string };
  const pid = answer.pid ?? answer.data ?? -1;
  if (pid > 0) return pid;
  const words = (answer.message ?? conmonLog()).trim().slice(-1000) || 'it gave no reason';
  throw new Fault('invalid', `the container could not be created: ${words}`, {
    remedy: 'change what the runtime complains of in the service',
  });
}

/** Tells conmon to close its log file and open one of that name anew; nothing where conmon has ended. */
export function reopenConmonLog(bundle: string): void {
  let fd: number;
  try {
    fd = openSync(join(bundle, conmonFiles.control), constants.O_WRONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENXIO' || code === 'ENOENT') return;
    throw error;
  }
  try {
    writeSync(fd, '2 0 0\n');
  } finally {
    closeSync(fd);
  }
}
