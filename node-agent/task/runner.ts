/** Carries one task through its life: asks `decide`, executes the steps, tells what came of it. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { describe, Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type BackoffPolicy, backoffMs } from '#proto/kernel/retry.ts';
import type { TaskId } from '#proto/model/ids.ts';
import type { HealthCheck } from '#proto/model/service.ts';
import { type Health, isTerminal, mayWant, type TaskState, type TaskStatus } from '#proto/model/task.ts';
import type { ContainerExit, ContainerState, LiveSettings } from '../runtime/runtime.ts';
import type { Fence } from '../watchdog/fence.ts';
import { decide, type Effect, type Step, stopReason, type TaskSeen, type TaskWanted } from './decide.ts';
import { goesOn, healthCheckOf, monitorHealth, type ProbeRecord } from './health.ts';
import { awaitListening } from './listening.ts';
import type { Prober } from './prober.ts';
import { type Progress, type Steps, settingsOf } from './steps.ts';

export interface RunnerParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly steps: Steps;
  readonly prober: Prober;
  readonly fence: Pick<Fence, 'mayBegin' | 'killed'>;
  /** Each new word about the task; journalled and sent by the receiver before anything follows from it. */
  readonly report: (status: TaskStatus) => void;
  /** It runs now, and its log can be followed; also at adoption. */
  readonly running: (wanted: TaskWanted) => void;
  /** Nothing of it is left here, and nobody wants it. */
  readonly forgotten: (task: TaskId) => void;
  /** Whether it listens as it should, where it has no health check; true where nothing is known of that. */
  readonly listens?: ((wanted: TaskWanted, pid: number) => boolean) | undefined;
  /** For metrics. */
  readonly stepDone?: ((step: Effect, durationMs: number) => void) | undefined;
}

const backoff: BackoffPolicy = { initialMs: 250, maxMs: 8_000, attempts: 6 };
/** Leftovers are tried for ever: nothing else may take their place. So are limits: what is in use now may be free later. */
const cleanupBackoff: BackoffPolicy = { initialMs: 500, maxMs: 30_000 };

export class TaskRunner {
  readonly #parts: RunnerParts;
  #wanted: TaskWanted;
  #status: TaskStatus;
  #progress: Progress = {};
  #exit: ContainerExit | undefined;
  readonly #busy = new Set<Effect>();
  /** Of effects that have not succeeded since. */
  readonly #failures = new Map<Effect, { readonly attempts: number; readonly error: string }>();
  #retryAtMs = 0;
  #limitAgainAtMs = 0;
  #verdict: TaskSeen['verdict'];
  #unhealthy: string | undefined;
  #drained = false;
  #preStopAtMs: number | undefined;
  #signalledAtMs: number | undefined;
  #killed = false;
  #endedAtMs: number | undefined;
  #emptied = false;
  #cleaned = false;
  #timer: Timer | undefined;
  #health: { readonly records?: readonly ProbeRecord[]; stop(): void } | undefined;
  readonly #preparing = new AbortController();
  readonly #draining = new AbortController();
  #closed = false;
  #turning = false;
  /** What the wall clock was ahead of the monotonic one when instants of what is wanted were told: it may have stepped since. */
  #wallMs: number;

  /** `known`: what an earlier agent last said of it, and what the runtime has of it now. */
  constructor(
    parts: RunnerParts,
    wanted: TaskWanted,
    known: { readonly status?: TaskStatus | undefined; readonly container?: ContainerState | undefined } = {},
  ) {
    this.#parts = parts;
    this.#wanted = wanted;
    this.#wallMs = parts.clock.now() - parts.clock.monotonic();
    this.#status = known.status ?? firstStatus(wanted, parts.clock.now());
    if (known.container) this.#adopt(known.container);
    else if (this.#status.startedAtMs > 0 && !isTerminal(this.#status.state)) {
      // It ran, and neither it nor its exit file is there any more.
      this.#exit = { exitCode: 255, oomKilled: false, atMs: parts.clock.now(), lost: true };
    }
    if (isTerminal(this.#status.state)) this.#endedAtMs = 0;
  }

  get wanted(): TaskWanted {
    return this.#wanted;
  }
  get status(): TaskStatus {
    return this.#status;
  }
  /** The last results of its health check, oldest first. */
  get probes(): readonly ProbeRecord[] {
    return this.#health?.records ?? [];
  }
  /** It has, or may get, a namespace: the network must know of it. */
  get networked(): boolean {
    return !isTerminal(this.#status.state) && !this.#cleaned;
  }
  /** Its remains may still be here. */
  get remains(): boolean {
    return !this.#cleaned;
  }

  #adopt(container: ContainerState): void {
    if (container.status === 'exited' || container.status === 'lost') {
      this.#exit = container.exit ?? {
        exitCode: 255,
        oomKilled: false,
        atMs: this.#parts.clock.now(),
        lost: true,
      };
      return;
    }
    const { status, pid, settings } = container;
    this.#progress = { container: status, pid, ...(settings && { settings }) };
  }

  /** Begins, or goes on after a change of what is wanted. */
  update(wanted: TaskWanted): void {
    const { task } = this.#wanted;
    // A leader that withholds the stop from all does not know that an earlier one has told us.
    const isBackward = mayWant(wanted.task.wanted, task.wanted);
    this.#wanted = isBackward ? { ...wanted, task: { ...wanted.task, wanted: task.wanted, why: task.why } } : wanted;
    this.#wallMs = this.#parts.clock.now() - this.#parts.clock.monotonic();
    // What was refused is not what is wanted now.
    this.#limitAgainAtMs = 0;
    if (stopReason(this.#wanted)) this.#preparing.abort(new Fault('cancelled', 'the task was told to stop'));
    this.#giveUpAgain();
    this.wake();
  }

  /** It cannot go on, whatever is wanted of it. */
  lose(reason: string): void {
    this.#verdict ??= { state: 'failed', error: reason };
    this.wake();
  }

  exited(exit: ContainerExit): void {
    if (this.#exit || isTerminal(this.#status.state)) return;
    this.#exit = exit;
    this.#draining.abort();
    this.wake();
  }

  /** Decides and acts until there is nothing to do at this moment. */
  wake(): void {
    if (this.#closed || this.#turning) return;
    this.#turning = true;
    this.#timer?.cancel();
    try {
      for (let more = true; more && !this.#closed; ) {
        const { clock } = this.#parts;
        const monotonicMs = clock.monotonic();
        const now = { wallMs: monotonicMs + this.#wallMs, monotonicMs };
        const { steps, againInMs } = decide(this.#wanted, this.#seen(), now);
        more = false;
        for (const step of steps) more = this.#do(step) || more;
        if (!more && againInMs !== undefined) this.#timer = clock.after(againInMs, () => this.wake());
      }
    } finally {
      this.#turning = false;
    }
  }

  /** Stops deciding; the container is left as it is. */
  close(): void {
    this.#closed = true;
    this.#timer?.cancel();
    this.#health?.stop();
    this.#preparing.abort(new Fault('cancelled', 'the agent is stopping'));
    this.#draining.abort();
  }

  #seen(): TaskSeen {
    const { fence } = this.#parts;
    const { id, singleton } = this.#wanted.task;
    return {
      state: this.#status.state,
      image: this.#progress.image !== undefined,
      rootfs: this.#progress.rootfs !== undefined,
      mounts: this.#progress.mounts !== undefined,
      network: this.#progress.network !== undefined,
      container: this.#progress.container ?? 'none',
      limited: sameSettings(this.#progress.settings, settingsOf(this.#wanted)),
      limitAgainAtMs: this.#limitAgainAtMs,
      exit: this.#exit,
      leased: !singleton || fence.mayBegin(),
      fenced: singleton && this.#exit ? fence.killed(id) : undefined,
      emptied: this.#emptied,
      busy: this.#busy,
      retryAtMs: this.#retryAtMs,
      verdict: this.#verdict,
      unhealthy: this.#unhealthy,
      drained: this.#drained,
      hooksRun: this.#status.hooksRun ?? 0,
      preStop:
        this.#preStopAtMs === undefined
          ? undefined
          : { beganAtMs: this.#preStopAtMs, failure: this.#progress.preStopFailure },
      signalledAtMs: this.#signalledAtMs,
      killed: this.#killed,
      endedAtMs: this.#endedAtMs,
      cleaned: this.#cleaned,
    };
  }

  /** True when the step changed what is seen at once, so that deciding again makes sense. */
  #do(step: Step): boolean {
    switch (step.do) {
      case 'report':
        this.#enter(step.state, step.message, step.error, step.why);
        return true;
      case 'forget':
        this.close();
        this.#parts.forgotten(this.#wanted.task.id);
        return false;
      case 'effect':
        void this.#run(step.effect, step.why);
        return false;
    }
  }

  #enter(state: TaskState, message: string, error: string, why: string): void {
    const { clock, log } = this.#parts;
    const now = clock.now();
    const image = this.#progress.image?.digest ?? this.#status.imageDigest;
    const ended = isTerminal(state);
    // In the same word: whoever hears that it runs must not take it for one without a check.
    const isWatched = state === 'running' && this.#status.health === '' && this.#check !== undefined;
    log.info('task state', { task: this.#wanted.task.id, state, why, ...(error ? { error } : {}) });
    this.#tell({
      state,
      message,
      error,
      startedAtMs: state === 'running' && this.#status.startedAtMs === 0 ? now : this.#status.startedAtMs,
      finishedAtMs: ended ? (this.#exit?.atMs ?? now) : 0,
      exitCode: ended ? (this.#exit?.exitCode ?? 0) : 0,
      oomKilled: this.#exit?.oomKilled ?? false,
      health: isWatched ? 'starting' : this.#status.health,
      pid: ended ? 0 : (this.#progress.pid ?? this.#status.pid),
      imageDigest: image,
    });
    if (state === 'running') this.#begin(true);
    if (ended) {
      this.#endedAtMs = clock.monotonic();
      this.#health?.stop();
      this.#retryAtMs = 0;
    }
  }

  #tell(fields: Partial<TaskStatus>): void {
    this.#status = { ...this.#status, ...fields, atMs: this.#parts.clock.now() };
    this.#parts.report(this.#status);
  }

  get #check(): HealthCheck | undefined {
    return healthCheckOf(this.#wanted.template.container, this.#progress.image?.config);
  }

  /** It runs: follow its log and watch its health. */
  #begin(fresh: boolean): void {
    this.#parts.running(this.#wanted);
    const { clock, random, prober } = this.#parts;
    const check = this.#check;
    if (this.#health) return;
    if (!check) {
      this.#awaitListening(fresh);
      return;
    }
    const { task } = this.#wanted;
    const { startedAtMs, health, pid } = this.#status;
    const target = { pid, address: task.address || '127.0.0.1' };
    this.#health = monitorHealth(
      { clock, random, probe: () => prober.probe(task.id, check, target) },
      { check, sinceStartMs: Math.max(0, clock.now() - startedAtMs), health },
      (next, output) => this.#healthChanged(next, output),
    );
  }

  /** Also where an earlier agent waited. */
  #awaitListening(fresh: boolean): void {
    const { clock, listens } = this.#parts;
    const { health, pid } = this.#status;
    if (!fresh && health === '') return;
    const ready = () => listens?.(this.#wanted, pid) ?? true;
    this.#health = awaitListening(clock, health, ready, (next) => this.#healthChanged(next, ''));
  }

  /** Goes on with a task that an earlier agent had running. `image`: for its health check, where it is still known. */
  resume(image?: Progress['image']): void {
    if (image && !this.#progress.image) this.#progress = { ...this.#progress, image };
    if (this.#status.state === 'running' && !this.#exit) {
      this.#begin(false);
      this.#giveUpAgain();
    }
    this.wake();
  }

  #healthChanged(health: Health, output: string): void {
    const bad = health === 'unhealthy';
    const message = this.#status.health === 'unhealthy' ? 'running' : this.#status.message;
    this.#tell({ health, message: bad ? `unhealthy: ${output}` : message });
    if (bad) this.#giveUp(output);
  }

  /** It is unhealthy: is it to be ended for it? */
  #giveUp(output: string): void {
    const check = this.#check;
    if (!check || this.#unhealthy !== undefined) return;
    const isRefused = check.onUnhealthy === 'isolate' && this.#wanted.task.isolationRefused;
    if (goesOn(check) && !isRefused) return;
    this.#health?.stop();
    this.#unhealthy = output || 'its health check failed';
    this.#draining.abort();
    this.wake();
  }

  /** As `#giveUp`, where that was known before. */
  #giveUpAgain(): void {
    const { state, health, message } = this.#status;
    if (state === 'running' && health === 'unhealthy') this.#giveUp(message.replace(/^unhealthy: /, ''));
  }

  async #run(effect: Effect, why: string): Promise<void> {
    const { clock, log, steps } = this.#parts;
    const task = this.#wanted.task.id;
    this.#busy.add(effect);
    if (effect === 'pre-stop') this.#preStopAtMs = clock.monotonic();
    log.debug('step', { task, step: effect, why });
    // The signal of a stop must not abort the stopping itself.
    const input = {
      wanted: this.#wanted,
      got: this.#progress,
      hooksRun: this.#status.hooksRun ?? 0,
      signal: effect === 'drain' ? this.#draining.signal : this.#preparing.signal,
      say: (message: string) => this.#say(message),
    };
    const startedAt = clock.monotonic();
    try {
      const got = await steps[effect](input);
      this.#progress = { ...this.#progress, ...got };
      this.#recovered(effect);
      this.#done(effect);
      const durationMs = clock.monotonic() - startedAt;
      this.#parts.stepDone?.(effect, durationMs);
      log.debug('step done', { task, step: effect, durationMs });
    } catch (error) {
      if (!this.#closed) this.#failed(effect, error);
    }
    this.#busy.delete(effect);
    this.wake();
  }

  #done(effect: Effect): void {
    if (effect === 'drain') this.#drained = true;
    else if (effect === 'post-start') this.#tell({ hooksRun: (this.#status.hooksRun ?? 0) + 1 });
    else if (effect === 'signal') this.#signalledAtMs = this.#parts.clock.monotonic();
    else if (effect === 'kill') this.#killed = true;
    else if (effect === 'empty') this.#emptied = true;
    else if (effect === 'cleanup') this.#cleaned = true;
  }

  /** What it does now, and why it has not got further yet. */
  #say(message: string): void {
    const error = this.#failures.values().next().value?.error ?? '';
    if (isTerminal(this.#status.state) || (this.#status.message === message && this.#status.error === error)) return;
    this.#tell({ message, error });
  }

  #recovered(effect: Effect): void {
    if (this.#failures.delete(effect)) this.#say(this.#failures.size > 0 ? this.#status.message : this.#status.state);
  }

  #failed(effect: Effect, error: unknown): void {
    const { clock, random, log } = this.#parts;
    const task = this.#wanted.task.id;
    if (stopReason(this.#wanted) && (effect === 'post-start' || isFault(error, 'cancelled'))) return;
    const attempt = (this.#failures.get(effect)?.attempts ?? 0) + 1;
    const reason = `${words[effect]}: ${describe(error)}`;
    this.#failures.set(effect, { attempts: attempt, error: reason });
    const ending = effect === 'cleanup' || effect === 'signal' || effect === 'kill' || effect === 'empty';
    const policy = ending || effect === 'limit' ? cleanupBackoff : backoff;
    log.warn('step failed', { task, step: effect, attempt, error });
    // What is gone cannot be signalled: its exit is on its way, or has been told.
    if (effect === 'signal') this.#signalledAtMs ??= clock.monotonic();
    if (effect === 'limit') {
      this.#limitAgainAtMs = clock.monotonic() + backoffMs(policy, attempt, random);
      // Of one that has just ended its exit will tell.
      if (!isFault(error, 'not-found', 'precondition')) this.#say(this.#status.message);
      return;
    }
    if (ending || (isTransient(error) && attempt < backoff.attempts!)) {
      const waitMs = backoffMs(policy, attempt, random);
      this.#retryAtMs = clock.monotonic() + waitMs;
      if (!ending) this.#say(`trying again after ${attempt} ${attempt === 1 ? 'failure' : 'failures'}`);
      return;
    }
    this.#verdict = { state: effect === 'start' || effect === 'post-start' ? 'failed' : 'rejected', error: reason };
  }
}

const words: Record<Effect, string> = {
  'ensure-image': 'image not available',
  'prepare-rootfs': 'no root filesystem',
  'prepare-mounts': 'mounts not prepared',
  'attach-network': 'no network',
  create: 'container not created',
  start: 'container not started',
  'post-start': 'post_start',
  limit: 'limits not changed',
  drain: 'not drained',
  'pre-stop': 'pre_stop not run',
  signal: 'stop signal not sent',
  kill: 'not killed',
  empty: 'processes of it are left',
  cleanup: 'remains not removed',
};

/** Worth another try: the world may change, the request need not. */
function isTransient(error: unknown): boolean {
  return !isFault(error) || isFault(error, 'unavailable', 'timeout', 'exhausted', 'conflict', 'internal', 'cancelled');
}

function sameSettings(a: LiveSettings | undefined, b: LiveSettings): boolean {
  return (
    a !== undefined && ((a.limits === b.limits && a.controls === b.controls) || JSON.stringify(a) === JSON.stringify(b))
  );
}

/** Of a task nothing is remembered of: what the cluster knows of its start says whether it is new, or has lost its memory here. */
function firstStatus(wanted: TaskWanted, nowMs: number): TaskStatus {
  const { task } = wanted;
  return {
    taskId: task.id,
    state: 'assigned',
    message: '',
    error: '',
    atMs: nowMs,
    startedAtMs: task.startedAtMs,
    finishedAtMs: 0,
    exitCode: 0,
    oomKilled: false,
    health: '',
    pid: 0,
    imageDigest: '',
  };
}
