/** Real processes for tests: started with their output kept for the failure message, ended by their own pid. */
import { type ChildProcess, spawn } from 'node:child_process';
import { systemClock } from '#proto/kernel/clock.ts';

/** Arguments for `setpriv`: what it becomes ends with the test's process, also a test that failed half-way. Vitest waits for the output of whatever is left. */
export const endsWithTest = ['--pdeathsig', 'KILL', '--'] as const;

export interface TestProcess {
  readonly pid: number;
  /** What it has printed so far, both streams. */
  output(): string;
  readonly exited: boolean;
  kill(signal?: NodeJS.Signals): void;
  /** SIGTERM, then after 5 s SIGKILL; resolves when it has gone. */
  stop(): Promise<void>;
}

/** Starts a program. Throws with its output where it cannot be started. */
export function startProcess(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): TestProcess {
  const child: ChildProcess = spawn('setpriv', [...endsWithTest, command, ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { ...process.env, ...env },
  });
  let output = '';
  const keep = (chunk: Buffer) => {
    output = (output + chunk.toString()).slice(-20_000);
  };
  child.stdout!.on('data', keep);
  child.stderr!.on('data', keep);
  let exited = false;
  const exit = new Promise<void>((resolve) => {
    const end = () => {
      exited = true;
      resolve();
    };
    child.once('exit', end);
    child.once('error', (error) => {
      output += `${error}`;
      end();
    });
  });
  return {
    pid: child.pid ?? 0,
    output: () => output,
    get exited() {
      return exited;
    },
    kill: (signal = 'SIGTERM') => void child.kill(signal),
    async stop() {
      if (!exited) child.kill('SIGTERM');
      const timer = systemClock.after(5_000, () => void child.kill('SIGKILL'));
      await exit;
      timer.cancel();
    },
  };
}
