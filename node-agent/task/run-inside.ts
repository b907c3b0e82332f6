/** Runs a command in a task's container to its end: what probes and hooks have in common. */
import type { Clock } from '#proto/kernel/clock.ts';
import type { Hook } from '#proto/model/hook.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { Runtime } from '../runtime/runtime.ts';

export interface InsideParts {
  readonly clock: Clock;
  readonly runtime: Pick<Runtime, 'exec'>;
}

/** Of what a command says, so many characters from its end are kept: there is the reason. */
export const outputLimit = 4_096;

export interface CommandResult {
  readonly code: number;
  /** Of both streams, without space around it. */
  readonly output: string;
  /** It was ended after `limitMs`. */
  readonly isLate: boolean;
}

/** Killed after `limitMs`, or when the signal aborts. Faults: as of `Runtime.exec`, when it cannot be begun. */
export async function runInside(
  { clock, runtime }: InsideParts,
  id: TaskId,
  command: Hook,
  { limitMs, signal }: { readonly limitMs?: number | undefined; readonly signal?: AbortSignal | undefined } = {},
): Promise<CommandResult> {
  const session = await runtime.exec({ ...command, id, tty: false, stdin: false, columns: 0, rows: 0 });
  let output = '';
  const gather = (chunk: Buffer | string) => {
    output = `${output}${chunk}`.slice(-outputLimit);
  };
  session.stdout.on('data', gather);
  session.stderr?.on('data', gather);
  let isLate = false;
  const end = () => session.signal('SIGKILL');
  const late = () => {
    isLate = true;
    end();
  };
  const timer = limitMs === undefined ? undefined : clock.after(limitMs, late);
  signal?.addEventListener('abort', end, { once: true });
  const code = await session.exit;
  timer?.cancel();
  signal?.removeEventListener('abort', end);
  return { code, output: output.trim(), isLate };
}
