/** A Node program that runs in a network namespace beside a test, which talks to it and reads what it prints. */
import { spawn } from 'node:child_process';
import { endsWithTest } from './process.ts';

export interface LabProgram {
  /** What it has printed so far. */
  output(): string;
  /** Gives it a line on its standard input. */
  say(line: string): void;
  /** All it has printed, once it has ended. */
  readonly ended: Promise<string>;
  kill(): void;
}

/** Starts `text` in the namespace at `netns`; `on`: the processor it is pinned to, where it matters. */
export function startProgram(netns: string, text: string, on?: number): LabProgram {
  const command = ['nsenter', `--net=${netns}`, process.execPath, '-e', text];
  if (on !== undefined) command.unshift('taskset', '-c', String(on));
  const child = spawn('setpriv', [...endsWithTest, ...command], { stdio: ['pipe', 'pipe', 'inherit'] });
  let printed = '';
  child.stdout.on('data', (data) => {
    printed += data;
  });
  // It may have ended before it is told something.
  child.stdin.on('error', () => {});
  return {
    output: () => printed,
    say: (line) => child.stdin.write(`${line}\n`),
    ended: new Promise((resolve) => child.once('close', () => resolve(printed))),
    kill: () => child.kill('SIGKILL'),
  };
}
