/** A container's health check, as Docker runs it: by exec, every interval, quicker while it starts, given up after some failures in a row. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { describe } from '#proto/kernel/errors.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { type ContainerSpec, defaults, type HealthCheck } from '#proto/model/service.ts';
import type { Health } from '#proto/model/task.ts';
import type { ImageConfig, Runtime } from '../runtime/runtime.ts';

/** The check that applies: the service's, else the image's; undefined where neither has one or it is switched off. Pure. */
export function healthCheckOf(container: ContainerSpec, image: ImageConfig | undefined): HealthCheck | undefined {
  const own = container.healthCheck;
  // A service may change the timing alone and keep the image's test.
  const test = own && own.test.length > 0 ? own.test : (image?.healthCheck?.test ?? []);
  if (test.length === 0 || test[0] === 'NONE') return undefined;
  const check = own ?? image!.healthCheck!;
  return {
    test,
    intervalMs: check.intervalMs || defaults.healthCheck.intervalMs,
    timeoutMs: check.timeoutMs || defaults.healthCheck.timeoutMs,
    startPeriodMs: check.startPeriodMs,
    startIntervalMs: check.startIntervalMs || defaults.healthCheck.startIntervalMs,
    retries: check.retries || defaults.healthCheck.retries,
  };
}

/** The command that a check's test means. Pure. */
export function commandOf(test: readonly string[]): readonly string[] {
  const [kind, ...rest] = test;
  return kind === 'CMD-SHELL' ? ['/bin/sh', '-c', rest.join(' ')] : kind === 'CMD' ? rest : test;
}

export interface ProbeResult {
  readonly ok: boolean;
  readonly output: string;
}

/** Where a check stands. */
export interface HealthState {
  readonly health: Health;
  readonly failures: number;
}

/** What one result makes of the state: failures within the start period do not count until the first success. Pure. */
export function nextHealth(
  check: HealthCheck,
  state: HealthState,
  result: ProbeResult,
  sinceStartMs: number,
): HealthState {
  if (result.ok) return { health: 'healthy', failures: 0 };
  if (state.health === 'starting' && sinceStartMs < check.startPeriodMs) return state;
  const failures = state.failures + 1;
  return { health: failures >= check.retries ? 'unhealthy' : state.health, failures };
}

/** How long until the next probe. Pure. */
export function nextProbeMs(check: HealthCheck, state: HealthState, sinceStartMs: number): number {
  const starting = state.health === 'starting' && sinceStartMs < check.startPeriodMs;
  return starting ? Math.min(check.startIntervalMs, check.intervalMs) : check.intervalMs;
}

const outputLimit = 4_096;

/** Runs the check until `stop` is called. `changed` gets each new health, with the last output where it is bad. */
export function monitorHealth(
  parts: { clock: Clock; runtime: Runtime },
  task: { id: TaskId; check: HealthCheck; sinceStartMs: number; health: Health },
  changed: (health: Health, output: string) => void,
): { stop(): void } {
  const { clock, runtime } = parts;
  const { check } = task;
  const startedAt = clock.monotonic() - task.sinceStartMs;
  let stopped = false;
  let timer: Timer | undefined;
  let state: HealthState = { health: task.health || 'starting', failures: 0 };
  const sinceStart = () => clock.monotonic() - startedAt;
  const schedule = () => {
    timer = clock.after(nextProbeMs(check, state, sinceStart()), () => void turn());
  };
  const turn = async () => {
    const result = await probe({ clock, runtime }, task.id, check);
    if (stopped) return;
    const before = state.health;
    state = nextHealth(check, state, result, sinceStart());
    if (state.health !== before) changed(state.health, result.output);
    if (state.health !== 'unhealthy') schedule();
  };
  if (task.health === '') changed('starting', '');
  schedule();
  return {
    stop() {
      stopped = true;
      timer?.cancel();
    },
  };
}

/** One run of the check. Never rejects: what goes wrong is a failed probe, in words. */
export async function probe(
  parts: { clock: Clock; runtime: Runtime },
  id: TaskId,
  check: HealthCheck,
): Promise<ProbeResult> {
  try {
    const session = await parts.runtime.exec({
      id,
      command: commandOf(check.test),
      env: [],
      user: '',
      workingDir: '',
      tty: false,
      stdin: false,
      columns: 0,
      rows: 0,
    });
    let output = '';
    const gather = (chunk: Buffer | string) => {
      if (output.length < outputLimit) output += chunk.toString();
    };
    session.stdout.on('data', gather);
    session.stderr?.on('data', gather);
    let timedOut = false;
    const timer = parts.clock.after(check.timeoutMs, () => {
      timedOut = true;
      session.signal('SIGKILL');
    });
    const code = await session.exit;
    timer.cancel();
    if (timedOut) return { ok: false, output: `the check took longer than ${check.timeoutMs / 1000} s` };
    return { ok: code === 0, output: output.trim().slice(0, outputLimit) || `the check exited with ${code}` };
  } catch (error) {
    return { ok: false, output: `the check could not be run: ${describe(error)}` };
  }
}
