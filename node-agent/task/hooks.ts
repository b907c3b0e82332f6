/** Runs the hooks of a task's life in its container, and says how they went. */
import { describe, Fault } from '#proto/kernel/errors.ts';
import type { Hook } from '#proto/model/hook.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { type InsideParts, runInside } from './run-inside.ts';

/** Runs one hook to its end. Fault `precondition`, with what it said: it failed; `timeout`: it was ended after `limitMs`. */
export async function runHook(
  parts: InsideParts,
  task: TaskId,
  hook: Hook,
  limits: { readonly limitMs?: number; readonly signal?: AbortSignal } = {},
): Promise<void> {
  const { code, output, isLate } = await runInside(parts, task, hook, limits);
  const said = output === '' ? '' : `: ${output}`;
  const name = hook.command.join(' ').slice(0, 100);
  if (isLate) throw new Fault('timeout', `"${name}" took longer than ${limits.limitMs! / 1_000} s${said}`);
  if (code !== 0) throw new Fault('precondition', `"${name}" ended with exit code ${code}${said}`);
}

/** Runs all of them before a task's end, within `limitMs`; the first failure, in words, ends it. */
export async function runPreStop(
  parts: InsideParts,
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
