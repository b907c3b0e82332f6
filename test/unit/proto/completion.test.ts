/** When the work of a service is done. */
import { describe, expect, it } from 'vitest';
import { hasCompleted } from '#proto/model/completion.ts';
import { type Iteration, type IterationState, noJob } from '#proto/model/job.ts';
import { defaults } from '#proto/model/service.ts';
import { aService, aTask } from '#test/support/builders.ts';

const iteration = (number: number, state: IterationState): Iteration => ({
  number,
  revision: 1,
  dueAtMs: 0,
  startedAtMs: 1,
  finishedAtMs: 2,
  state,
  completions: 3,
  completed: 3,
  failed: 0,
  exitCode: 0,
  message: '',
});

describe('the work of a job', () => {
  const job = (...states: IterationState[]) =>
    aService(
      'job',
      { mode: 'replicated-job' },
      { job: { ...noJob, iterations: states.map((state, index) => iteration(index + 1, state)) } },
    );

  it.each([
    [[], false],
    [['running'], false],
    [['complete'], true],
    [['complete', 'failed'], false],
    [['complete', 'running'], false],
    [['complete', 'skipped'], true],
  ] as const)('after iterations %j is done: %s', (states, done) => {
    expect(hasCompleted(job(...states), [])).toBe(done);
  });
});

describe('the work of another service', () => {
  const service = aService('job', { replicas: 2, restart: { ...defaults.restart, condition: 'on-failure' } });
  const complete = (slot: number) => aTask(`t${slot}`, { slot, state: 'complete', createdAtMs: slot });

  it('is done when the last task of every slot has completed', () => {
    expect(hasCompleted(service, [complete(1)])).toBe(false);
    expect(hasCompleted(service, [complete(1), complete(2)])).toBe(true);
    expect(hasCompleted(service, [complete(1), complete(2), aTask('new', { slot: 2, createdAtMs: 5 })])).toBe(false);
    expect(hasCompleted(service, [complete(1), { ...complete(2), revision: 0 }])).toBe(false);
  });

  it('is never done where what ends is begun again', () => {
    const again = aService('job', { replicas: 1 });
    expect(hasCompleted(again, [complete(1)])).toBe(false);
  });
});
