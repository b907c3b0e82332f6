/** What people hear of a job's iterations. */
import { expect, it } from 'vitest';
import { jobWords } from '#control-plane/events/job-events.ts';
import { another, begin, replaceRunning, skip } from '#control-plane/reconcilers/iterations.ts';
import { type Job, noJob } from '#proto/model/job.ts';
import { aSpec } from '#test/support/builders.ts';

const spec = aSpec('job', { mode: 'replicated-job', replicas: 2 });
const beginning = { spec, revision: 1, now: 5_000, dueAtMs: 0, message: 'applied' };
const said = (before: Job, after: Job) => jobWords(before, after).map(({ action, message }) => `${action}: ${message}`);

it('hear that one begins, why, and how it ends', () => {
  const begun = begin(noJob, beginning);
  expect(said(noJob, begun)).toEqual(['iteration: iteration 1: applied']);
  expect(said(begun, begun)).toEqual([]);
  const [iteration] = begun.iterations;
  const ended = {
    ...iteration!,
    finishedAtMs: 9_000,
    completed: 1,
    failed: 1,
    state: 'failed',
    message: 'job.1: exit code 2',
  } as const;
  expect(said(begun, { ...begun, iterations: [ended] })).toEqual([
    'iteration-failed: iteration 1 failed, 1 completed, 1 failed: job.1: exit code 2',
  ]);
  expect(said({ ...begun, iterations: [ended] }, { ...begun, iterations: [] })).toEqual([]);
});

it('hear of instants, of what is replaced, skipped and suspended', () => {
  const begun = begin(noJob, { ...beginning, dueAtMs: 4_000, message: '' });
  expect(said(noJob, begun)).toEqual(['iteration: iteration 1, due 1970-01-01T00:00:04.000Z']);
  expect(said(begun, another(begun, beginning))).toEqual([
    'iteration-replaced: iteration 1 replaced: replaced by iteration 2: applied',
    'iteration: iteration 2: applied',
  ]);
  expect(said(begun, skip(begun, { ...beginning, dueAtMs: 6_000, message: 'too late' }))).toEqual([
    'iteration: iteration 2, due 1970-01-01T00:00:06.000Z',
    'iteration-skipped: iteration 2 skipped: too late',
  ]);
  expect(said(begun, { ...begun, suspended: true })).toEqual(['suspended: its schedule']);
  expect(replaceRunning(noJob, 1, 'nothing')).toBe(noJob);
});
