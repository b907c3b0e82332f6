/** Runs the hooks of a task's life in its container, and says how they went. */
import type { Clock } from '#proto/kernel/clock.ts';
import { describe, Fault } from '#proto/kernel/errors.ts';
import type { Hook } from '#proto/model/hook.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { Runtime } from '../runtime/runtime.ts';

export interface HookParts {
  readonly clock: Clock;
  readonly runtime: Pick<Runtime, 'exec'>;
}

/** Of what a hook says, the end is kept: there is the reason. */
const outputLimit = 2_048;

/** Runs one hook to its end. Fault `precondition`, with what it said: it failed; `timeout`: it was ended after `limitMs`. */
export async function runHook(
  { clock, runtime }: HookParts,
  task: TaskId,
  hook: Hook,
  limits: { readonly limitMs?: number; readonly signal?: AbortSignal } = {},
): Promise<void> {
  const { command, user, privileged, workingDir, env } = hook;
  const session = await runtime.exec({
    id: task,
    command,
    env,
    user,
    privileged,
    workingDir,
    tty: false,
    stdin: false,
    columns: 0,
    rows: 0,
  });
  let output = '';
  const gather = (chunk: Buffer | string) => {
    output = `${output}${chunk}`.slice(-outputLimit);
  };
  session.stdout.on('data', gather);
  session.stderr?.on('data', gather);
  let isLate = false;
  const end = () => session.signal('SIGKILL');
  const timer =
    limits.limitMs === undefined
      ? undefined
      : clock.after(limits.limitMs, () => {
          isLate = true;
          end();
        });
  limits.signal?.addEventListener('abort', end, { once: true });
  const code = await session.exit;
  timer?.cancel();
  limits.signal?.removeEventListener('abort', end);
  const said = output.trim() === '' ? '' : `: ${output.trim()}`;
  const name = command.join(' ').slice(0, 100);
  if (isLate) throw new Fault('timeout', `"${name}" took longer than ${limits.limitMs! / 1_000} s${said}`);
  if (code !== 0) throw new Fault('precondition', `"${name}" ended with exit code ${code}${said}`);
}

/** Runs all of them before a task's end, within `limitMs`; the first failure, in words, ends it. */
export async function runPreStop(
  parts: HookParts,
  task: TaskId,
  hooks: readonly Hook[],
  limitMs: number,
): Promise<string> {
  const untilMs = parts.clock.monotonic() + limitMs;
  try {
    for (const hook of hooks)
      await runHook(parts, task, hook, { limitMs: Math.max(1, untilMs - parts.clock.monotonic()) });
    return '';
  } catch (error) {
    return `pre_stop: ${describe(error)}`;
  }
}
