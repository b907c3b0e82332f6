/** `x-schedule`, `x-max-concurrent` and the modes of jobs: work that ends. */
import type { Schedule } from '#proto/model/job.ts';
import { isJob } from '#proto/model/job.ts';
import { mostRemembered } from '#proto/model/job-rules.ts';
import { defaults, type RestartPolicy, type ServiceSpec } from '#proto/model/service.ts';
import { limits } from '#proto/model/validate.ts';
import { refuse } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readBoolean, readDuration, readInteger, readKeys, readOneOf, readText } from './read.ts';
import type { Tree } from './tree.ts';

/** A cron expression, or a map with one. */
export function readSchedule(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  const schedule: { -readonly [Key in keyof Schedule]: Schedule[Key] } = { ...defaults.schedule };
  let [cron, timezone] = [tree, tree];
  if (tree.kind === 'scalar') schedule.cron = readText(findings, tree) ?? '';
  else
    readKeys(findings, tree, 'x-schedule', schedule, {
      cron: (schedule, value) => {
        schedule.cron = readText(findings, value) ?? '';
        cron = value;
      },
      timezone: (schedule, value) => {
        schedule.timezone = readText(findings, value) ?? '';
        timezone = value;
      },
      overlap: (schedule, value) => {
        schedule.overlap = readOneOf(findings, value, ['allow', 'forbid', 'replace']) ?? schedule.overlap;
      },
      'catch-up': (schedule, value) => {
        schedule.catchUp = readOneOf(findings, value, ['none', 'last', 'all']) ?? schedule.catchUp;
      },
      'starting-deadline': (schedule, value) => {
        schedule.startingDeadlineMs = readDuration(findings, value) ?? 0;
      },
      history: (schedule, value) =>
        readKeys(findings, value, 'history', schedule, {
          success: (schedule, value) => {
            schedule.keepSucceeded = readInteger(findings, value, 0, mostRemembered) ?? 0;
          },
          failed: (schedule, value) => {
            schedule.keepFailed = readInteger(findings, value, 0, mostRemembered) ?? 0;
          },
        }),
      suspend: (schedule, value) => {
        schedule.suspend = readBoolean(findings, value) ?? false;
      },
    });
  draft.schedule = { value: schedule, place: tree, cron, timezone };
}

export function readMaxConcurrent(draft: Draft, tree: Tree): void {
  const value = readInteger(draft.findings, tree, 1, limits.replicas);
  if (value !== undefined) draft.maxConcurrent = { value, place: tree };
}

/** With a schedule and no mode it is a job of one task. */
export function modeOf(draft: Draft): ServiceSpec['mode'] {
  return draft.mode?.value ?? (draft.schedule ? 'replicated-job' : 'replicated');
}

/** A job that has completed is not begun again; where nothing is said, what has failed is, three times. */
export function restartOf(draft: Draft): RestartPolicy {
  const policy = draft.restartPolicy ?? draft.restart;
  if (!isJob({ mode: modeOf(draft) })) return policy ?? defaults.restart;
  if (!policy) return defaults.jobRestart;
  return policy.condition === 'any' && !draft.restartsAlways ? { ...policy, condition: 'on-failure' } : policy;
}

export function refuseRollouts(draft: Draft): void {
  if (draft.updateConfig && isJob({ mode: modeOf(draft) }))
    refuse(draft.findings, draft.updateConfig, 'a job has no rollouts: what has changed runs anew', 'remove it');
}
