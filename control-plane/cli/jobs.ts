/** `gantry job`: work that ends, when it runs next, and how it went. */
import { type JobSummary, ListRequest, ServiceRequest } from '#proto/gen/gantry/v1/operator.ts';
import type { Iteration } from '#proto/gen/gantry/v1/types.ts';
import { systemClock } from '#proto/kernel/clock.ts';
import { exitCodes } from './failure.ts';
import { watchProgress } from './progress-view.ts';
import { type CommonOptions, methods, type Session, withSession } from './session.ts';
import { ago, clockTime, span, table } from './words.ts';

export function list(options: CommonOptions & { readonly project?: string }): Promise<number> {
  return withSession(options, async (session) => {
    const request = ListRequest.create({ kind: 'job', project: options.project ?? '' });
    const { jobs } = await session.call(methods.list, request);
    if (session.json) session.printJson(jobs.map(json));
    else if (jobs.length === 0) session.print('There are no jobs: give a service x-schedule, or mode: replicated-job.');
    else {
      const now = systemClock.now();
      const rows = jobs.map((job) => {
        const spec = job.service?.spec;
        const last = job.service?.job?.iterations.findLast(({ state }) => state !== 'skipped');
        return [
          `${spec?.project}/${spec?.name}`,
          spec?.schedule ? `${spec.schedule.cron}${spec.schedule.timezone ? ` ${spec.schedule.timezone}` : ''}` : '',
          nextOf(job, now),
          last ? String(last.number) : '',
          last ? resultOf(session, last) : '',
          last ? `${job.completed}/${job.wanted}` : '',
          last ? ago(last.finishedAtMs || last.startedAtMs, now) : '',
        ];
      });
      session.print(
        table(['JOB', 'SCHEDULE', 'NEXT', 'ITERATION', 'RESULT', 'COMPLETED', 'SINCE'], rows, session.colours.bold),
      );
    }
    return exitCodes.ok;
  });
}

export function history(options: CommonOptions, name: string): Promise<number> {
  return withSession(options, async (session) => {
    const { jobs } = await session.call(methods.list, ListRequest.create({ kind: 'job', service: name }));
    const iterations = [...(jobs[0]?.service?.job?.iterations ?? [])].reverse();
    if (session.json) session.printJson(iterations);
    else if (iterations.length === 0) session.print(`${name} has not run yet.`);
    else {
      const rows = iterations.map((iteration) => [
        String(iteration.number),
        iteration.dueAtMs > 0 ? clockTime(iteration.dueAtMs) : '',
        clockTime(iteration.startedAtMs),
        tookOf(iteration),
        resultOf(session, iteration),
        iteration.state === 'failed' ? String(iteration.exitCode) : iteration.state === 'complete' ? '0' : '',
        iteration.message,
      ]);
      session.print(
        table(['ITERATION', 'DUE', 'STARTED', 'TOOK', 'RESULT', 'EXIT', 'REASON'], rows, session.colours.bold),
      );
    }
    return exitCodes.ok;
  });
}

export function run(options: CommonOptions & { readonly detach?: true }, names: readonly string[]): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.runJob, ServiceRequest.create({ services: [...names] }));
    if (session.json && options.detach) session.printJson(response);
    if (!session.json) session.print(response.message);
    if (options.detach) return exitCodes.ok;
    const awaited = new Map(response.serviceIds.map((id, index) => [id, response.names[index] ?? id]));
    return await watchProgress(session, awaited, { revision: response.revision });
  });
}

export function suspend(options: CommonOptions, names: readonly string[], suspended: boolean): Promise<number> {
  return withSession(options, async (session) => {
    const response = await session.call(methods.suspendJob, { services: [...names], suspended });
    if (session.json) session.printJson(response);
    else session.print(response.message);
    return exitCodes.ok;
  });
}

function json({ service, nextAtMs, completed, wanted }: JobSummary): object {
  return { ...service, nextAtMs, completed, wanted };
}

function nextOf({ service, nextAtMs }: JobSummary, now: number): string {
  const [next] = nextAtMs;
  if (next !== undefined) return `in ${span(next - now)}`;
  const rests = service?.job?.suspended || service?.spec?.schedule?.suspend;
  return rests ? 'suspended' : service?.spec?.schedule ? 'never' : '';
}

function resultOf({ colours }: Session, { state }: Iteration): string {
  const colour = { complete: colours.green, failed: colours.red, running: colours.yellow }[state] ?? colours.dim;
  return colour(state);
}

function tookOf({ startedAtMs, finishedAtMs, state }: Iteration): string {
  if (state === 'skipped' || finishedAtMs === 0) return '';
  const ms = finishedAtMs - startedAtMs;
  return ms < 10_000 ? `${(ms / 1_000).toFixed(1)} seconds` : span(ms);
}
