/** One run of the command line: what to start, what to print when it fails, and with which exit code to end. */
import { inspect } from 'node:util';
import type { CommanderError } from 'commander';
import { faultLines } from './failure.ts';

/** Rooms with a main of their own: `gantry sandbox …` is that process. */
const mains: Readonly<Record<string, string>> = {
  sandbox: '../../node-agent/sandbox/main.ts',
  agent: '../../node-agent/main.ts',
  'control-plane': '../main.ts',
};

/** The exit code. */
export async function run(args: readonly string[]): Promise<number> {
  for (const stream of [process.stdout, process.stderr])
    stream.on('error', (error: NodeJS.ErrnoException) => {
      if (error.code === 'EPIPE') process.exit(0);
      throw error;
    });
  const main = mains[args[0] ?? ''];
  if (main !== undefined) {
    const { runMain } = await import('./processes.ts');
    return await runMain(new URL(main, import.meta.url), args.slice(1));
  }
  const { createProgram } = await import('./program.ts');
  const ending = { code: 0 };
  try {
    await createProgram((code) => {
      ending.code = code;
    }).parseAsync(args, { from: 'user' });
    return ending.code;
  } catch (error) {
    if (isCommanderError(error)) return error.exitCode === 0 ? 0 : 2;
    const { lines, exitCode } = faultLines(error);
    process.stderr.write(lines.map((line) => `${line}\n`).join(''));
    if (process.env.GANTRY_DEBUG) process.stderr.write(`${inspect(error)}\n`);
    return exitCode;
  }
}

function isCommanderError(error: unknown): error is CommanderError {
  return error instanceof Error && 'code' in error && String(error.code).startsWith('commander.');
}
