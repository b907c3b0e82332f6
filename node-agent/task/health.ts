/** A container's health check, by Docker's rules: every interval, quicker while it starts, given up after some failures in a row. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type ContainerSpec, defaults, type HealthCheck } from '#proto/model/service.ts';
import type { Health } from '#proto/model/task.ts';
import type { ImageConfig } from '../runtime/runtime.ts';

/** The check that applies: the service's, else the image's; undefined where neither has one or it is switched off. Pure. */
export function healthCheckOf(container: ContainerSpec, image: ImageConfig | undefined): HealthCheck | undefined {
  const own = container.healthCheck;
  if (own && (own.http || own.tcp || own.grpc) && own.test[0] !== 'NONE') return own;
  // A service may change the timing alone and keep the image's test.
  const test = own && own.test.length > 0 ? own.test : (image?.healthCheck?.test ?? []);
  if (test.length === 0 || test[0] === 'NONE') return undefined;
  const said = (field: 'intervalMs' | 'timeoutMs' | 'startPeriodMs' | 'startIntervalMs' | 'retries') =>
    own?.[field] || image?.healthCheck?.[field] || defaults.healthCheck[field];
  return {
    ...(own ?? defaults.healthCheck),
    test,
    intervalMs: said('intervalMs'),
    timeoutMs: said('timeoutMs'),
    startPeriodMs: said('startPeriodMs'),
    startIntervalMs: said('startIntervalMs'),
    retries: said('retries'),
  };
}

export interface ProbeResult {
  readonly ok: boolean;
  /** What it said, at most 4 KiB. */
  readonly output: string;
}

/** A result as people are shown it. */
export interface ProbeRecord extends ProbeResult {
  /** When it began, by this machine's clock. */
  readonly atMs: number;
  readonly tookMs: number;
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

/** So many results are kept for those who ask. */
const mostRecords = 5;
/** Each wait is up to so many thousandths shorter, so that tasks begun together are not asked together for ever. */
const jitter = 100;

/** What is unhealthy is not ended for it: it may get well again, or is to be looked at. */
export function goesOn({ onUnhealthy }: HealthCheck): boolean {
  return onUnhealthy === 'ignore' || onUnhealthy === 'isolate';
}

export interface HealthMonitor {
  /** Oldest first. */
  readonly records: readonly ProbeRecord[];
  stop(): void;
}

/** Runs the check until `stop` is called. `changed` gets each new health, with the last output where it is bad. */
export function monitorHealth(
  parts: { readonly clock: Clock; readonly random: Random; readonly probe: () => Promise<ProbeResult> },
  task: { readonly check: HealthCheck; readonly sinceStartMs: number; readonly health: Health },
  changed: (health: Health, output: string) => void,
): HealthMonitor {
  const { clock, random } = parts;
  const { check } = task;
  const startedAt = clock.monotonic() - task.sinceStartMs;
  const records: ProbeRecord[] = [];
  let stopped = false;
  let timer: Timer | undefined;
  let state: HealthState = { health: task.health || 'starting', failures: 0 };
  const sinceStart = () => clock.monotonic() - startedAt;
  const schedule = () => {
    const waitMs = nextProbeMs(check, state, sinceStart());
    timer = clock.after(Math.max(1, waitMs - Math.floor((waitMs * random.int(jitter)) / 1_000)), () => void turn());
  };
  const turn = async () => {
    const atMs = clock.now();
    const begunMs = clock.monotonic();
    const result = await parts.probe();
    if (stopped) return;
    records.push({ ...result, atMs, tookMs: Math.round(clock.monotonic() - begunMs) });
    if (records.length > mostRecords) records.shift();
    const before = state.health;
    state = nextHealth(check, state, result, sinceStart());
    if (state.health !== before) changed(state.health, result.output);
    // What is to be replaced needs no more asking.
    if (state.health !== 'unhealthy' || goesOn(check)) schedule();
  };
  if (task.health === '') changed('starting', '');
  schedule();
  return {
    records,
    stop() {
      stopped = true;
      timer?.cancel();
    },
  };
}
