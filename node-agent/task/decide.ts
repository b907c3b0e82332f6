/** What one task needs next, out of what is wanted, what is seen, and now. Pure.
 *
 *   ensure-image ─▶ prepare-rootfs ─▶ prepare-mounts ─┐
 *   attach-network ──────────────────────────────────┴▶ create ─▶ (ready) ─▶ start ─▶ post-start ─▶ (running)
 *   told to stop: drain ─▶ pre-stop ─▶ signal ─▶ grace ─▶ kill ─▶ (shutdown)  any end: cleanup ─▶ forget
 */
import type { TaskAssignment } from '#proto/model/assignment.ts';
import { compareStates, exitWords, isTerminal, type TaskState } from '#proto/model/task.ts';
import type { ContainerExit } from '../runtime/runtime.ts';

export interface TaskWanted extends TaskAssignment {
  /** No longer in the node's set: it ends, and its remains and its record go. */
  readonly removed: boolean;
}

/** Work with effects; each is safe to repeat. */
export const effects = [
  'ensure-image',
  'prepare-rootfs',
  'prepare-mounts',
  'attach-network',
  'create',
  'start',
  'post-start',
  'limit',
  'drain',
  'pre-stop',
  'signal',
  'kill',
  'empty',
  'cleanup',
] as const;
export type Effect = (typeof effects)[number];

export interface TaskSeen {
  /** As last reported. */
  readonly state: TaskState;
  readonly image: boolean;
  readonly rootfs: boolean;
  readonly mounts: boolean;
  readonly network: boolean;
  readonly container: 'none' | 'created' | 'running';
  /** It has the limits that are wanted. */
  readonly limited: boolean;
  /** Limits that were refused are not set again before this (monotonic ms). */
  readonly limitAgainAtMs: number;
  readonly exit: ContainerExit | undefined;
  /** Of a singleton: its node holds a lease that it may begin under. */
  readonly leased: boolean;
  /** Why the end of its node's lease ended it. */
  readonly fenced: string | undefined;
  /** No process of it is left. */
  readonly emptied: boolean;
  /** Effects under way. */
  readonly busy: ReadonlySet<Effect>;
  /** A failed effect is not tried again before this (monotonic ms). */
  readonly retryAtMs: number;
  /** An effect failed for good: how the task ends. */
  readonly verdict: { readonly state: 'rejected' | 'failed'; readonly error: string } | undefined;
  /** Why its health check gave it up. */
  readonly unhealthy: string | undefined;
  /** Nobody has a connection to it any more, or they have had their time. */
  readonly drained: boolean;
  /** Hooks of its post_start that have run. */
  readonly hooksRun: number;
  /** Its pre_stop hooks: when they began (monotonic ms), and, when they are done, what failed of them. */
  readonly preStop: { readonly beganAtMs: number; readonly failure?: string | undefined } | undefined;
  /** When its stop signal was sent (monotonic ms). */
  readonly signalledAtMs: number | undefined;
  readonly killed: boolean;
  /** When it was seen to have ended (monotonic ms). */
  readonly endedAtMs: number | undefined;
  readonly cleaned: boolean;
}

export interface Now {
  readonly wallMs: number;
  readonly monotonicMs: number;
}

export type Step =
  | { readonly do: 'effect'; readonly effect: Effect; readonly why: string }
  | {
      readonly do: 'report';
      readonly state: TaskState;
      readonly message: string;
      readonly error: string;
      readonly why: string;
    }
  | { readonly do: 'forget'; readonly why: string };

export interface Decision {
  /** To be begun now, all of them; they do not depend on each other. */
  readonly steps: readonly Step[];
  /** Look again after this long, even if nothing happens. */
  readonly againInMs?: number | undefined;
}

/** The remains of an ended task wait this long, so that its replacement, which somebody waits for, comes first. */
export const cleanupDelayMs = 250;

/** A task that must wait is prepared so long before its start, and no sooner: where preparing itself fails, the wait must hold it back. */
const prepareAheadMs = 1_000;

/** How often a singleton that waits for a lease looks for it. */
const leaseLookMs = 50;

const nothing: Decision = { steps: [] };

export function decide(wanted: TaskWanted, seen: TaskSeen, now: Now): Decision {
  const decision = next(wanted, seen, now);
  return wanted.task.singleton && !isTerminal(seen.state) ? surely(decision, seen) : decision;
}

/** Another one begins when the end of a singleton is told: not before nothing of it is left. Where its exit is known, nothing is. */
function surely(decision: Decision, seen: TaskSeen): Decision {
  const ends = decision.steps.some((step) => step.do === 'report' && isTerminal(step.state));
  if (!ends || seen.emptied || (seen.exit && !seen.exit.lost)) return decision;
  if (seen.busy.size > 0) return nothing;
  return { steps: [{ do: 'effect', effect: 'empty', why: 'another one begins when its end is told' }] };
}

function next(wanted: TaskWanted, seen: TaskSeen, now: Now): Decision {
  if (isTerminal(seen.state)) return remains(wanted, seen, now);
  if (seen.exit) return report(ending(seen.exit, seen), 'its process has ended');
  if (seen.verdict) return giveUp(wanted, seen, now, seen.verdict);
  const stop = stopReason(wanted);
  if (stop) return mustDrain(wanted, seen) ? draining(seen, stop) : stopping(wanted, seen, now, stop);
  if (seen.unhealthy !== undefined) return stopping(wanted, seen, now, seen.unhealthy);
  if (seen.container === 'running') {
    if (seen.state === 'running') return limiting(seen, now);
    return seen.hooksRun < wanted.template.container.postStart.length
      ? hooking(seen, now)
      : report({ state: 'running', message: 'running', error: '' }, 'it started');
  }
  return preparing(wanted, seen, now);
}

/** Why a task is to end by our hand; undefined while it is not. */
export function stopReason(wanted: TaskWanted): string | undefined {
  if (wanted.removed) return 'it is no longer assigned to this node';
  if (wanted.task.wanted === 'shutdown' || wanted.task.wanted === 'remove') {
    return wanted.task.why || 'the control plane wants it shut down';
  }
  return undefined;
}

function preparing(wanted: TaskWanted, seen: TaskSeen, now: Now): Decision {
  if (seen.retryAtMs > now.monotonicMs) return { steps: [], againInMs: seen.retryAtMs - now.monotonicMs };
  const earlyMs = wanted.task.startAfterMs - prepareAheadMs - now.wallMs;
  if (earlyMs > 0 && seen.container === 'none') return { steps: [], againInMs: earlyMs };
  const steps: Step[] = [];
  const want = (effect: Effect, why: string) => {
    if (!seen.busy.has(effect)) steps.push({ do: 'effect', effect, why });
  };
  if (seen.container === 'created') return starting(wanted, seen, now);
  // Its address is another one's until that has ended: what needs none is all that can be done.
  const isApart = wanted.task.wanted === 'ready' && wanted.task.address === '' && wanted.template.networkMode === '';
  if (isApart && seen.rootfs) return starting(wanted, seen, now);
  if (!seen.network && !isApart) want('attach-network', 'it has no network yet');
  if (!seen.image) want('ensure-image', 'its image is not known to be here');
  else if (!seen.rootfs) want('prepare-rootfs', 'it has no writable layer');
  else if (!seen.mounts) want('prepare-mounts', 'its mounts are not prepared');
  else if (seen.network) want('create', 'everything it needs is there');
  if (steps.length > 0 && compareStates(seen.state, 'preparing') < 0) {
    steps.unshift({ do: 'report', state: 'preparing', message: 'preparing', error: '', why: 'work on it begins' });
  }
  return { steps };
}

function starting(wanted: TaskWanted, seen: TaskSeen, now: Now): Decision {
  const { task } = wanted;
  const waitMs = task.startAfterMs - now.wallMs;
  if (task.wanted === 'ready' || waitMs > 0) {
    const message = task.wanted === 'ready' ? 'ready to start' : 'waiting for its restart delay';
    const steps: Step[] = [];
    if (compareStates(seen.state, 'ready') < 0) {
      steps.push({ do: 'report', state: 'ready', message, error: '', why: 'it is prepared' });
    }
    return { steps, againInMs: task.wanted === 'ready' ? undefined : waitMs };
  }
  if (task.singleton && !seen.leased) {
    const message = 'waits for a lease of its node';
    const steps: Step[] =
      compareStates(seen.state, 'ready') < 0
        ? [{ do: 'report', state: 'ready', message, error: '', why: 'a singleton runs under a lease' }]
        : [];
    return { steps, againInMs: leaseLookMs };
  }
  if (seen.busy.has('start')) return nothing;
  const steps: Step[] = [{ do: 'effect', effect: 'start', why: 'it is wanted running' }];
  if (compareStates(seen.state, 'starting') < 0) {
    steps.unshift({ do: 'report', state: 'starting', message: 'starting', error: '', why: 'it is wanted running' });
  }
  return { steps };
}

/** It does not count as running before its hooks have, one after the other. */
function hooking(seen: TaskSeen, now: Now): Decision {
  if (seen.busy.has('post-start')) return nothing;
  if (seen.retryAtMs > now.monotonicMs) return { steps: [], againInMs: seen.retryAtMs - now.monotonicMs };
  return { steps: [{ do: 'effect', effect: 'post-start', why: `hook ${seen.hooksRun + 1} of its post_start` }] };
}

/** Its limits may change while it runs; that they cannot be set is no reason to end it. */
function limiting(seen: TaskSeen, now: Now): Decision {
  if (seen.limited || seen.busy.has('limit')) return nothing;
  const waitMs = seen.limitAgainAtMs - now.monotonicMs;
  if (waitMs > 0) return { steps: [], againInMs: waitMs };
  return { steps: [{ do: 'effect', effect: 'limit', why: 'other limits are wanted' }] };
}

/** Others may be in the middle of something with it. Of what is not well, or has not come up, nobody expects an answer. */
function mustDrain(wanted: TaskWanted, seen: TaskSeen): boolean {
  if (seen.container !== 'running' || seen.state !== 'running' || seen.unhealthy !== undefined) return false;
  return wanted.template.container.drainMs > 0 && !seen.drained && seen.signalledAtMs === undefined;
}

function draining(seen: TaskSeen, why: string): Decision {
  return seen.busy.has('drain') ? nothing : { steps: [{ do: 'effect', effect: 'drain', why }] };
}

function stopping(wanted: TaskWanted, seen: TaskSeen, now: Now, why: string): Decision {
  if (seen.container !== 'running') {
    // An effect under way could still make something: wait for it, its signal is aborted.
    if (seen.busy.size > 0) return nothing;
    return report({ state: 'shutdown', message: `not started: ${why}`, error: '' }, why);
  }
  if (seen.signalledAtMs === undefined) {
    if (mustHook(wanted, seen)) {
      return seen.busy.has('pre-stop') ? nothing : { steps: [{ do: 'effect', effect: 'pre-stop', why }] };
    }
    return seen.busy.has('signal') ? nothing : { steps: [{ do: 'effect', effect: 'signal', why }] };
  }
  const leftMs = graceEndsAtMs(wanted, seen, seen.signalledAtMs) - now.monotonicMs;
  if (leftMs > 0) return { steps: [], againInMs: leftMs };
  if (seen.killed || seen.busy.has('kill')) return nothing;
  if (seen.retryAtMs > now.monotonicMs) return { steps: [], againInMs: seen.retryAtMs - now.monotonicMs };
  return { steps: [{ do: 'effect', effect: 'kill', why: `${why}; it has not ended within its grace period` }] };
}

/** A container that came up has its pre_stop hooks before its stop signal; of one that could not go on nothing is expected. */
function mustHook(wanted: TaskWanted, seen: TaskSeen): boolean {
  if (seen.state !== 'running' || seen.verdict || wanted.template.container.preStop.length === 0) return false;
  return seen.preStop?.failure === undefined;
}

/** However long its hooks took, it has so long after its stop signal. */
const leastGraceMs = 2_000;

/** Its pre_stop hooks are of its grace period. */
function graceEndsAtMs(wanted: TaskWanted, { preStop }: TaskSeen, signalledAtMs: number): number {
  const graceMs = wanted.template.container.stopGracePeriodMs;
  if (!preStop) return signalledAtMs + graceMs;
  return Math.max(preStop.beganAtMs + graceMs, signalledAtMs + Math.min(graceMs, leastGraceMs));
}

/** It cannot go on: what runs of it is stopped without grace, then its end is told. */
function giveUp(wanted: TaskWanted, seen: TaskSeen, now: Now, verdict: NonNullable<TaskSeen['verdict']>): Decision {
  if (seen.container === 'running') return stopping(wanted, seen, now, verdict.error);
  if (seen.busy.size > 0) return nothing;
  const stop = stopReason(wanted);
  if (stop) return report({ state: 'shutdown', message: `not started: ${stop}`, error: '' }, stop);
  return report({ state: verdict.state, message: verdict.state, error: verdict.error }, verdict.error);
}

/** How an exit is told. */
function ending(exit: ContainerExit, seen: TaskSeen): { state: TaskState; message: string; error: string } {
  if (seen.unhealthy !== undefined) {
    return { state: 'failed', message: 'stopped because it was unhealthy', error: `unhealthy: ${seen.unhealthy}` };
  }
  if (seen.verdict && seen.signalledAtMs !== undefined) {
    return { state: seen.verdict.state, message: 'stopped because it could not go on', error: seen.verdict.error };
  }
  if (seen.signalledAtMs !== undefined) {
    const message = seen.killed ? 'killed: it had not ended within its grace period' : 'stopped';
    return { state: 'shutdown', message, error: seen.preStop?.failure ?? '' };
  }
  if (seen.fenced !== undefined) return { state: 'orphaned', message: 'killed', error: seen.fenced };
  if (exit.lost) {
    const error = 'its monitor (conmon) died, so its exit code is not known';
    return { state: 'failed', message: 'lost', error };
  }
  if (exit.oomKilled)
    return { state: 'failed', message: 'out of memory', error: 'killed: it needed more than its memory limit' };
  if (exit.exitCode === 0) return { state: 'complete', message: 'finished', error: '' };
  return { state: 'failed', message: `exited with ${exit.exitCode}`, error: exitWords(exit.exitCode) };
}

function remains(wanted: TaskWanted, seen: TaskSeen, now: Now): Decision {
  if (seen.cleaned) {
    return wanted.removed ? { steps: [{ do: 'forget', why: 'it has ended, and nothing is left of it' }] } : nothing;
  }
  if (seen.busy.size > 0) return nothing;
  const dueMs = Math.max(seen.retryAtMs, (seen.endedAtMs ?? 0) + cleanupDelayMs);
  if (dueMs > now.monotonicMs) return { steps: [], againInMs: dueMs - now.monotonicMs };
  return { steps: [{ do: 'effect', effect: 'cleanup', why: 'it has ended' }] };
}

function report(outcome: { state: TaskState; message: string; error: string }, why: string): Decision {
  return { steps: [{ do: 'report', ...outcome, why }] };
}
