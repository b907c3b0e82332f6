/** Work that ends: its iterations, and when the next one is due. Field contracts: proto/gantry/v1/types.proto. */

/** When a job runs by itself (Compose: `x-schedule`). */
export interface Schedule {
  readonly cron: string;
  /** Of the IANA database; empty: UTC. */
  readonly timezone: string;
  /** What becomes of an instant that is due while an iteration is under way. */
  readonly overlap: 'allow' | 'forbid' | 'replace';
  /** Which of the instants run that nobody was there to see. */
  readonly catchUp: 'none' | 'last' | 'all';
  /** An instant may begin so late, no later; 0: any time, 10 s where nothing is caught up on. */
  readonly startingDeadlineMs: number;
  /** Ended iterations that are remembered. */
  readonly keepSucceeded: number;
  readonly keepFailed: number;
  readonly suspend: boolean;
}

export type IterationState = 'running' | 'complete' | 'failed' | 'replaced' | 'skipped';

/** One go at all of a job's completions. */
export interface Iteration {
  /** From 1; `Task.iteration` names it. */
  readonly number: number;
  readonly revision: number;
  /** The instant of the schedule; 0: it was asked for. At most one iteration of a job has any one. */
  readonly dueAtMs: number;
  readonly startedAtMs: number;
  /** 0 while it runs. */
  readonly finishedAtMs: number;
  readonly state: IterationState;
  /** Tasks that have to complete; 0: one on every node that fits. */
  readonly completions: number;
  /** Counted when it ends. */
  readonly completed: number;
  readonly failed: number;
  /** Of the last task that failed for good. */
  readonly exitCode: number;
  /** Why it began, or how it ended where that is no success. */
  readonly message: string;
}

/** What is known of a job beside its spec. */
export interface Job {
  /** The number of the newest iteration. */
  readonly iteration: number;
  /** Every instant of the schedule up to this one has had its iteration, or will have none. */
  readonly decidedUntilMs: number;
  /** By the operator; what the file says is `Schedule.suspend`. */
  readonly suspended: boolean;
  /** Oldest first: those under way, and some that have ended. */
  readonly iterations: readonly Iteration[];
}

export const noJob: Job = { iteration: 0, decidedUntilMs: 0, suspended: false, iterations: [] };

export function isJob({ mode }: { readonly mode: string }): boolean {
  return mode === 'replicated-job' || mode === 'global-job';
}

/** It has a task, or for a job a completion, on every node that fits, instead of a number of them. */
export function isPerNode({ mode }: { readonly mode: string }): boolean {
  return mode === 'global' || mode === 'global-job';
}

/** The newest iteration that began, or undefined. */
export function latestIteration({ job }: { readonly job: Job | undefined }): Iteration | undefined {
  return job?.iterations.findLast(({ state }) => state !== 'skipped');
}
