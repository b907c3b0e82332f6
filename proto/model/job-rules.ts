/** What jobs may not say. */
import { isFault } from '../kernel/errors.ts';
import { Zones } from './calendar.ts';
import { parseCron } from './cron.ts';
import { isJob, type Schedule } from './job.ts';
import { sharedNetworkOf } from './network.ts';
import type { ServiceSpec } from './service.ts';

type Refuse = (field: string, message: string, remedy: string) => void;

/** Ended iterations of each kind. */
export const mostRemembered = 100;

/** Everything that would never work; fields as Compose has them. */
export function jobProblems(spec: ServiceSpec, refuse: Refuse): void {
  const { mode, maxConcurrent, schedule } = spec;
  if (maxConcurrent > 0 && mode !== 'replicated-job')
    refuse(
      'x-max-concurrent',
      `of a ${mode} service all tasks run at once`,
      'use deploy.mode: replicated-job, or remove it',
    );
  if (schedule) scheduleProblems(schedule, refuse);
  if (!isJob(spec)) {
    if (schedule)
      refuse('x-schedule', `a ${mode} service does not end`, 'use deploy.mode: replicated-job or global-job');
    return;
  }
  if (mode === 'replicated-job' && spec.replicas === 0)
    refuse('deploy.replicas', 'a job of 0 completions does nothing', 'use 1 or more; x-schedule can be suspended');
  if (spec.restart.condition === 'any')
    refuse(
      'deploy.restart_policy.condition',
      'what a job has completed is not begun again',
      'use on-failure or none; to run it again and again, give it x-schedule',
    );
  if (sharedNetworkOf(spec.template.networkMode) !== undefined)
    refuse('network_mode', 'a job has no slots that last, to share a network with', 'put it on networks:');
}

function scheduleProblems(
  { cron, timezone, startingDeadlineMs, keepSucceeded, keepFailed }: Schedule,
  refuse: Refuse,
): void {
  const check = (field: string, action: () => void) => {
    try {
      action();
    } catch (error) {
      if (!isFault(error, 'invalid')) throw error;
      refuse(field, error.message, error.remedy ?? '');
    }
  };
  check('x-schedule.cron', () => parseCron(cron));
  check('x-schedule.timezone', () => new Zones().calendar('@daily', timezone));
  if (startingDeadlineMs < 0 || keepSucceeded > mostRemembered || keepFailed > mostRemembered)
    refuse('x-schedule', 'so much is not remembered', `use at most ${mostRemembered}`);
}
