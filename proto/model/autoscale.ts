/** Autoscaling: between which numbers a service may move and by what (`x-autoscale`), and how many tasks it has because of it. */

export interface Autoscale {
  /** 0: it has no task while nobody calls it. */
  readonly min: number;
  readonly max: number;
  /** Of what a task reserves, else of its limit, else of one core; 0: not looked at. */
  readonly cpuPercent: number;
  /** Of what a task reserves, else of its limit; 0: not looked at. */
  readonly memoryPercent: number;
  /** New connections of each task; 0: not looked at. */
  readonly requestsPerSecond: number;
  /** With `min: 0`: no task after so long without a request. */
  readonly idleMs: number;
  /** With `min: 0`: how long a request waits for a task before it is refused. */
  readonly holdMs: number;
  readonly up: ScalingPace;
  readonly down: ScalingPace;
  /** The entry whose instant was last is in force; before the first one `min` and `max` are. */
  readonly schedule: readonly ScheduledRange[];
}

export interface ScalingPace {
  /** Followed is only what was recommended for so long: up the lowest, down the highest of that time. */
  readonly stabilizationMs: number;
  /** At most so many more, or fewer, in 15 s, the larger of the two; both 0: no limit. */
  readonly stepTasks: number;
  readonly stepPercent: number;
}

export interface ScheduledRange {
  readonly cron: string;
  readonly timezone: string;
  readonly min: number;
  readonly max: number;
}

/** The number that was decided, kept beside the spec: an apply of the same file does not change it. */
export interface Autoscaled {
  readonly replicas: number;
  readonly why: string;
  /** Wall clock of the leader. */
  readonly atMs: number;
}

/** What of a service says how many tasks it has. */
export interface Scaled {
  readonly spec: { readonly replicas: number; readonly autoscale: Autoscale | undefined };
  readonly autoscaled: Autoscaled | undefined;
}

/** It may come to have no task. */
export function maySleep({ min, schedule }: Autoscale): boolean {
  return min === 0 || schedule.some((range) => range.min === 0);
}

export const autoscaleDefaults = {
  idleMs: 60_000,
  holdMs: 30_000,
  up: { stabilizationMs: 0, stepTasks: 0, stepPercent: 0 },
  down: { stabilizationMs: 60_000, stepTasks: 0, stepPercent: 0 },
} as const;

/** How many tasks a replicated service should have now. */
export function replicasOf({ spec, autoscaled }: Scaled): number {
  if (!spec.autoscale) return spec.replicas;
  return autoscaled?.replicas ?? Math.min(Math.max(spec.replicas, spec.autoscale.min), spec.autoscale.max);
}

/** Why it has that many. */
export function whyReplicas(service: Scaled): string {
  const { spec, autoscaled } = service;
  if (!spec.autoscale || !autoscaled) return `scaled to ${replicasOf(service)}`;
  return `autoscaled to ${autoscaled.replicas}: ${autoscaled.why}`;
}

/** `why` are words of `whyReplicas`: a task that was stopped with them had become one too many. */
export function isWhyReplicas(why: string): boolean {
  return /^(auto)?scaled to \d/.test(why);
}

/** New connections to it are counted, on every node. */
export function isCounted({ autoscale }: Pick<Scaled['spec'], 'autoscale'>): boolean {
  return autoscale !== undefined && (autoscale.requestsPerSecond > 0 || maySleep(autoscale));
}

/** How long connections to it wait for a task; 0: they do not. */
export function holdMsOf({ autoscale }: Pick<Scaled['spec'], 'autoscale'>): number {
  return autoscale && maySleep(autoscale) ? autoscale.holdMs : 0;
}
