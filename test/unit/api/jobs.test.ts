/** How far a job is, and what is told of its schedule. */
import { describe, expect, it } from 'vitest';
import { assess } from '#control-plane/api/assess.ts';
import { jobsOf, scheduleWords } from '#control-plane/api/jobs.ts';
import { list } from '#control-plane/api/list.ts';
import { keyOf, LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { ListRequest } from '#proto/gen/gantry/v1/operator.ts';
import { type Iteration, noJob } from '#proto/model/job.ts';
import { defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aNode, aService, aSpec, aTask, idOf } from '#test/support/builders.ts';
import { operatorLab } from '#test/support/operator.ts';

const now = Date.parse('2026-03-28T22:00:00Z');
const daily = { ...defaults.schedule, cron: '30 2 * * *', timezone: 'Europe/Berlin' };

function iteration(fields: Partial<Iteration> = {}): Iteration {
  return {
    number: 1,
    revision: 1,
    dueAtMs: 0,
    startedAtMs: now - 5_000,
    finishedAtMs: 0,
    state: 'running',
    completions: 3,
    completed: 0,
    failed: 0,
    exitCode: 0,
    message: 'applied',
    ...fields,
  };
}

function aJob(iterations: readonly Iteration[], spec: Partial<ServiceSpec> = {}): Service {
  const job = { ...noJob, iteration: iterations.length, decidedUntilMs: now, iterations };
  return aService('job', { mode: 'replicated-job', restart: defaults.jobRestart, ...spec }, { job });
}

function snapshotOf(service: Service, tasks: readonly Partial<Task>[] = []): LiveSnapshot {
  const snapshot = new LiveSnapshot();
  snapshot.apply('service', service.id, service, 1);
  for (const name of ['h1', 'h2']) snapshot.apply('node', keyOf('node', aNode(name)), aNode(name), 1);
  tasks.forEach((fields, index) => {
    const task = aTask(`t${index}`, {
      serviceId: service.id,
      serviceName: 'job',
      iteration: 1,
      createdAtMs: now,
      ...fields,
    });
    snapshot.apply('task', task.id, task, 1);
  });
  return snapshot;
}

const judged = (service: Service, tasks: readonly Partial<Task>[] = []) =>
  assess(snapshotOf(service, tasks), service.id, 'demo/job', { now, sinceMs: now - 5_000, rollback: false });

describe('a job', () => {
  it('is under way until its completions are done, and says what they wait for', () => {
    const tasks = [
      { slot: 1, state: 'complete' as const },
      { slot: 2 },
      { slot: 3, state: 'pending' as const, message: 'no node fits' },
    ];
    expect(judged(aJob([iteration()]), tasks)).toMatchObject({
      outcome: 'progressing',
      running: 1,
      wanted: 3,
      message: '1 of 3 completed; job.3 is pending: no node fits',
    });
  });
  it('has converged when they are, and failed when its iteration has', () => {
    const ended = { finishedAtMs: now, completed: 3 } as const;
    expect(judged(aJob([iteration({ ...ended, state: 'complete' })]))).toMatchObject({
      outcome: 'converged',
      running: 3,
      wanted: 3,
      message: 'completed',
    });
    const failed = iteration({
      ...ended,
      completed: 2,
      failed: 1,
      state: 'failed',
      message: 'job.1 on h1: exit code 3',
    });
    expect(judged(aJob([failed]))).toMatchObject({ outcome: 'failed', message: 'failed: job.1 on h1: exit code 3' });
  });
  it('is not given up while it has attempts left', () => {
    const failures = [1, 2, 3].map((index) => ({ slot: 1, state: 'failed' as const, createdAtMs: now + index }));
    expect(judged(aJob([iteration()]), failures).outcome).toBe('progressing');
    const endless = { restart: { ...defaults.jobRestart, maxAttempts: 0 } };
    expect(judged(aJob([iteration()], endless), failures).outcome).toBe('failed');
  });
  it('with a schedule waits for it, but for an iteration that was asked for', () => {
    const schedule = { schedule: daily };
    expect(judged(aJob([iteration({ dueAtMs: now - 5_000 })], schedule))).toMatchObject({
      outcome: 'converged',
      message: 'waits for its schedule',
    });
    expect(judged(aJob([iteration()], schedule)).outcome).toBe('progressing');
  });
});

describe('lists', () => {
  it('have a job with its next instants and completions', () => {
    const [summary] = jobsOf(
      snapshotOf(aJob([iteration()], { schedule: daily }), [{ slot: 1, state: 'complete' }]),
      ListRequest.create({ kind: 'job' }),
      now,
    );
    expect(summary).toMatchObject({ completed: 1, wanted: 3 });
    // The night of the 29th has no half past two: it is due when the clock is set.
    expect(summary!.nextAtMs.map((at) => new Date(at).toISOString())).toEqual([
      '2026-03-29T01:00:00.000Z',
      '2026-03-30T00:30:00.000Z',
      '2026-03-31T00:30:00.000Z',
    ]);
  });
  it('have the tasks of its newest iteration, and those of others while they run', async () => {
    const lab = operatorLab();
    const service = aJob([iteration({ state: 'complete' }), iteration({ number: 2 })]);
    const task = (name: string, fields: Partial<Task>) =>
      aTask(name, { serviceId: service.id, iteration: 1, ...fields });
    await lab.put('service', service);
    await lab.put(
      'task',
      task('old', { slot: 1, state: 'complete' }),
      task('late', { slot: 2 }),
      task('new', { slot: 1, state: 'complete', iteration: 2 }),
    );
    const { tasks } = list(lab.parts, ListRequest.create({ kind: 'task' }));
    expect(tasks.map(({ id }) => id)).toEqual([idOf('new'), idOf('late')]);
  });
});

describe('a plan', () => {
  const words = (schedule: ServiceSpec['schedule']) =>
    scheduleWords(aSpec('job', { mode: 'replicated-job', schedule }), now);
  it('names the next three instants in the time zone of the schedule', () => {
    expect(words(daily)).toEqual([
      'runs at 2026-03-29 03:00:00 Europe/Berlin, 2026-03-30 02:30:00 Europe/Berlin, 2026-03-31 02:30:00 Europe/Berlin',
    ]);
    expect(words({ ...daily, suspend: true })).toEqual(['suspended: it will not run by itself']);
    expect(words(undefined)).toEqual(['runs when it is applied, no more by itself']);
  });
});
