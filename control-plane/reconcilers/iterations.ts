/** How a job's iterations follow each other: what begins one, what ends it for another, and which are remembered. */
import { type Iteration, isJob, isPerNode, type Job, noJob, type Schedule } from '#proto/model/job.ts';
import { defaults, type Service, type ServiceSpec } from '#proto/model/service.ts';
import { same } from './same.ts';

/** What an iteration is begun with. */
export interface Beginning {
  readonly spec: ServiceSpec;
  readonly revision: number;
  /** Wall clock, ms. */
  readonly now: number;
  /** The instant of the schedule; 0: somebody asked. */
  readonly dueAtMs: number;
  readonly message: string;
}

export function begin(job: Job, { spec, revision, now, dueAtMs, message }: Beginning): Job {
  const number = job.iteration + 1;
  const iteration: Iteration = {
    number,
    revision,
    dueAtMs,
    startedAtMs: now,
    finishedAtMs: 0,
    state: 'running',
    completions: isPerNode(spec) ? 0 : spec.replicas,
    completed: 0,
    failed: 0,
    exitCode: 0,
    message,
  };
  return { ...job, iteration: number, iterations: [...job.iterations, iteration] };
}

/** As `begin`, of an instant that has no iteration, for a reason; it is remembered all the same. */
export function skip(job: Job, beginning: Beginning): Job {
  const begun = begin(job, beginning);
  const last = begun.iterations.at(-1)!;
  return remembered(
    { ...begun, iterations: [...job.iterations, { ...last, state: 'skipped', finishedAtMs: beginning.now }] },
    beginning.spec.schedule,
  );
}

/** Those under way end, for `why`; their tasks are told to stop. */
export function replaceRunning(job: Job, now: number, why: string): Job {
  if (!job.iterations.some(isUnderWay)) return job;
  const replaced = (iteration: Iteration): Iteration =>
    isUnderWay(iteration) ? { ...iteration, state: 'replaced', finishedAtMs: now, message: why } : iteration;
  return { ...job, iterations: job.iterations.map(replaced) };
}

export function isUnderWay({ state }: Iteration): boolean {
  return state === 'running';
}

/** Without iterations that ended so long ago that the schedule remembers them no more; the newest that began always stays. */
export function remembered(job: Job, schedule: Schedule | undefined): Job {
  const { keepSucceeded, keepFailed } = schedule ?? defaults.schedule;
  const room = { succeeded: keepSucceeded, failed: keepFailed };
  const newest = job.iterations.findLast(({ state }) => state !== 'skipped');
  const iterations = [...job.iterations]
    .reverse()
    .filter((iteration) => {
      if (isUnderWay(iteration)) return true;
      const fits = room[iteration.state === 'complete' ? 'succeeded' : 'failed']-- > 0;
      return fits || iteration === newest;
    })
    .reverse();
  return iterations.length === job.iterations.length ? job : { ...job, iterations };
}

/** A job as it begins: at once, or with the first instant of its schedule from now on. */
export function newJob(spec: ServiceSpec, now: number): Job | undefined {
  if (!isJob(spec)) return undefined;
  const job: Job = { ...noJob, decidedUntilMs: now };
  return spec.schedule ? job : begin(job, { spec, revision: 1, now, dueAtMs: 0, message: 'applied' });
}

/** With another spec. What has no schedule runs again where what runs has changed; a schedule that has changed counts from now on. */
export function updatedJob(service: Service, spec: ServiceSpec, revision: number, now: number): Job | undefined {
  if (!isJob(spec)) return undefined;
  const { job = noJob, spec: before } = service;
  if (spec.schedule)
    return same(before.schedule, spec.schedule) ? job : { ...job, decidedUntilMs: Math.max(job.decidedUntilMs, now) };
  const runsAgain = revision !== service.revision || before.replicas !== spec.replicas || before.schedule !== undefined;
  return runsAgain ? another(job, { spec, revision, now, dueAtMs: 0, message: 'applied' }) : job;
}

/** A new iteration in place of those under way. */
export function another(job: Job, beginning: Beginning): Job {
  const why = `replaced by iteration ${job.iteration + 1}: ${beginning.message}`;
  return remembered(begin(replaceRunning(job, beginning.now, why), beginning), beginning.spec.schedule);
}
