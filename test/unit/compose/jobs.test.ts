/** Jobs and their schedules in Compose files. */
import { describe, expect, it } from 'vitest';
import { bad, web } from '#test/support/compose.ts';

describe('a job', () => {
  it('has completions, and as many tasks at once as it says', () => {
    const spec = web('deploy: { mode: replicated-job, replicas: 5 }\nx-max-concurrent: 2');
    expect(spec).toMatchObject({ mode: 'replicated-job', replicas: 5, maxConcurrent: 2, schedule: undefined });
    expect(web('deploy: { mode: global-job }')).toMatchObject({ mode: 'global-job', replicas: 0, maxConcurrent: 0 });
  });

  it('tries three more times where nothing is said, and as often as it says', () => {
    const restart = (text: string) => web(`deploy:\n  mode: replicated-job${text}`).restart;
    expect(restart('')).toEqual({ condition: 'on-failure', delayMs: 0, maxAttempts: 3, windowMs: 0 });
    expect(restart('\n  restart_policy: { max_attempts: 1, window: 10s }')).toEqual({
      condition: 'on-failure',
      delayMs: 0,
      maxAttempts: 1,
      windowMs: 10_000,
    });
    expect(restart('\n  restart_policy: { condition: none }').condition).toBe('none');
    expect(restart('\nrestart: on-failure').maxAttempts).toBe(0);
  });
});

describe('a schedule', () => {
  it('is a cron expression, and makes a job of the service', () => {
    const spec = web('x-schedule: "*/5 * * * *"');
    expect(spec.mode).toBe('replicated-job');
    expect(spec.schedule).toEqual({
      cron: '*/5 * * * *',
      timezone: '',
      overlap: 'allow',
      catchUp: 'last',
      startingDeadlineMs: 0,
      keepSucceeded: 3,
      keepFailed: 3,
      suspend: false,
    });
  });

  it('says more as a map', () => {
    const spec = web(
      'deploy: { mode: global-job }\nx-schedule: { cron: "@daily", timezone: Europe/Berlin, overlap: forbid, catch-up: all, starting-deadline: 5m, history: { success: 1, failed: 0 }, suspend: true }',
    );
    expect(spec.mode).toBe('global-job');
    expect(spec.schedule).toEqual({
      cron: '@daily',
      timezone: 'Europe/Berlin',
      overlap: 'forbid',
      catchUp: 'all',
      startingDeadlineMs: 300_000,
      keepSucceeded: 1,
      keepFailed: 0,
      suspend: true,
    });
  });
});

describe('what is no job is refused at its place', () => {
  it.each([
    [
      'x-schedule: "* * *"',
      '4:17 services.web.x-schedule: "* * *" has 3 fields → write [SECOND] MINUTE HOUR DAY MONTH WEEKDAY, such as */5 * * * *',
    ],
    [
      'x-schedule: { cron: "61 * * * *" }',
      '4:25 services.web.x-schedule.cron: "61" is no minute → write a number from 0 to 59',
    ],
    [
      'x-schedule: { cron: "@daily", timezone: Berlin }',
      '4:45 services.web.x-schedule.timezone: "Berlin" is no time zone → write its name, such as Europe/Berlin, or UTC',
    ],
    [
      'x-schedule: { cron: "@daily", overlaps: allow }',
      '4:35 services.web.x-schedule.overlaps: unknown key "overlaps" → did you mean "overlap"?',
    ],
    [
      'deploy: { mode: replicated }\nx-schedule: "@daily"',
      '5:17 services.web.x-schedule: a replicated service does not end → use deploy.mode: replicated-job or global-job',
    ],
    [
      'x-max-concurrent: 2',
      '4:23 services.web.x-max-concurrent: of a replicated service all tasks run at once → use deploy.mode: replicated-job, or remove it',
    ],
    [
      'deploy: { mode: replicated-job, replicas: 0 }',
      '4:47 services.web.deploy.replicas: a job of 0 completions does nothing → use 1 or more; x-schedule can be suspended',
    ],
    [
      'deploy: { mode: global-job, replicas: 2 }',
      '4:43 services.web.deploy.replicas: a global service has one task on each node, not replicas → remove replicas, or use mode: replicated-job',
    ],
    [
      'deploy: { mode: replicated-job, restart_policy: { condition: any } }',
      '4:66 services.web.deploy.restart_policy.condition: what a job has completed is not begun again → use on-failure or none; to run it again and again, give it x-schedule',
    ],
    [
      'deploy: { mode: replicated-job }\nrestart: always',
      '5:14 services.web.restart: what a job has completed is not begun again → use on-failure or none; to run it again and again, give it x-schedule',
    ],
    [
      'deploy: { mode: replicated-job, update_config: { parallelism: 2 } }',
      '4:52 services.web.deploy.update_config: a job has no rollouts: what has changed runs anew → remove it',
    ],
    [
      'deploy: { mode: replicated-job }\nnetwork_mode: host\nx-schedule: { cron: "0 0 31 2 *" }',
      '6:25 services.web.x-schedule.cron: "0 0 31 2 *" names a day that no year has → choose a day that the month has',
    ],
  ])('%s', (text, words) => {
    expect(bad(text)).toEqual([`compose.yaml:${words}`]);
  });
});
