/** Pure: what becomes of a job's iterations, in words. */
import { type Iteration, type Job, noJob } from '#proto/model/job.ts';

interface Word {
  readonly action: string;
  readonly message: string;
}

/** In the order of their numbers; what is only remembered no more says nothing. */
export function jobWords(before: Job = noJob, after: Job = noJob): Word[] {
  const known = new Map(before.iterations.map((iteration) => [iteration.number, iteration]));
  const words = after.iterations.flatMap((iteration) => {
    const was = known.get(iteration.number);
    if (was?.state === iteration.state) return [];
    return was
      ? [ended(iteration)]
      : iteration.state === 'running'
        ? [begun(iteration)]
        : [begun(iteration), ended(iteration)];
  });
  if (before.suspended === after.suspended) return words;
  return [...words, { action: after.suspended ? 'suspended' : 'resumed', message: 'its schedule' }];
}

function begun({ number, dueAtMs, state, message }: Iteration): Word {
  const due = dueAtMs > 0 ? `, due ${new Date(dueAtMs).toISOString()}` : '';
  const why = state === 'running' && message !== '' ? `: ${message}` : '';
  return { action: 'iteration', message: `iteration ${number}${due}${why}` };
}

function ended({ number, state, message, completed, failed }: Iteration): Word {
  if (state === 'running') return { action: 'iteration', message: `iteration ${number} goes on` };
  const counts = state === 'complete' || state === 'failed' ? `, ${completed} completed` : '';
  const lost = failed > 0 ? `, ${failed} failed` : '';
  const why = state !== 'complete' && message !== '' ? `: ${message}` : '';
  return { action: `iteration-${state}`, message: `iteration ${number} ${state}${counts}${lost}${why}` };
}
