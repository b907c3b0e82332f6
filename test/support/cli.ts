/** The command line as a user starts it: a process, with a home of its own, against a given socket. */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** What a user starts. */
export const cliMain = fileURLToPath(new URL('../../control-plane/cli/main.ts', import.meta.url));

export interface CliEnd {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface CliRun {
  readonly child: ChildProcess;
  /** What it has printed so far. */
  stdout(): string;
  readonly end: Promise<CliEnd>;
}

export interface CliPlace {
  /** Home and working directory. */
  readonly directory: string;
  readonly socket: string;
}

/** Starts `gantry ARGS…`; with `terminal`, on a pseudo-terminal of `script`. */
export function startCli(
  place: CliPlace,
  args: readonly string[],
  options: { readonly env?: Record<string, string>; readonly terminal?: boolean; readonly input?: string } = {},
): CliRun {
  const command = [process.execPath, cliMain, ...args];
  const quoted = command.map((word) => `'${word.replaceAll("'", "'\\''")}'`).join(' ');
  const [program, ...rest] = options.terminal ? ['script', '-qefc', quoted, '/dev/null'] : command;
  const child = spawn(program!, rest, {
    cwd: place.directory,
    env: {
      PATH: process.env.PATH,
      HOME: place.directory,
      TERM: 'xterm',
      GANTRY_SOCKET: place.socket,
      NODE_COMPILE_CACHE: process.env.NODE_COMPILE_CACHE,
      ...options.env,
    },
  });
  let stdout = '';
  let stderr = '';
  child.stdout.setEncoding('utf8').on('data', (text) => {
    stdout += text;
  });
  child.stderr.setEncoding('utf8').on('data', (text) => {
    stderr += text;
  });
  if (options.input !== undefined) child.stdin.end(options.input);
  const end = new Promise<CliEnd>((resolve, reject) => {
    child.on('error', reject);
    child.on('close', (code) => resolve({ code: code ?? -1, stdout, stderr }));
  });
  return { child, stdout: () => stdout, end };
}
