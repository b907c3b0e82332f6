/** What wishes about jobs change in the store: an iteration by hand, and a schedule that rests. */
import type { Change } from '#control-plane/store/records.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import { isJob, type Job, noJob } from '#proto/model/job.ts';
import type { Service } from '#proto/model/service.ts';
import { begin, isUnderWay } from './iterations.ts';
import { nameOf, standing, type WishContext } from './service-changes.ts';

/** Another iteration, now. Faults: `not-found`, `invalid` (no job), `conflict` (one is under way, and they may not overlap). */
export function runJob(context: WishContext, id: ServiceId): Change[] {
  const service = standingJob(context, id);
  const { spec, revision, job = noJob } = service;
  const underWay = job.iterations.find(isUnderWay);
  if (underWay && spec.schedule?.overlap !== 'allow') {
    throw new Fault('conflict', `iteration ${underWay.number} of ${nameOf(service)} is under way`, {
      remedy: `wait for its end, or replace it: gantry restart ${spec.name}`,
    });
  }
  const { now } = context;
  return put(context, service, begin(job, { spec, revision, now, dueAtMs: 0, message: 'asked for' }));
}

/**
 * Its schedule rests, or goes on with the first instant from now on: what was due meanwhile is not caught up on. What is under
 * way goes on. Faults: `not-found`, `invalid` (no schedule), `precondition` (the file suspends it), `conflict`.
 */
export function suspendJob(context: WishContext, id: ServiceId, suspended: boolean): Change[] {
  const service = standingJob(context, id);
  const { schedule } = service.spec;
  if (!schedule) {
    throw new Fault('invalid', `job ${nameOf(service)} has no schedule`, {
      remedy: 'give it x-schedule in the Compose file',
    });
  }
  if (!suspended && schedule.suspend) {
    throw new Fault('precondition', `the Compose file suspends job ${nameOf(service)}`, {
      remedy: 'remove suspend: true there, and apply it again',
    });
  }
  const { job = noJob } = service;
  if (job.suspended === suspended) return [];
  const decidedUntilMs = Math.max(job.decidedUntilMs, context.now);
  return put(context, service, { ...job, suspended, decidedUntilMs });
}

function standingJob(context: WishContext, id: ServiceId): Service {
  const service = standing(context, id);
  if (isJob(service.spec)) return service;
  throw new Fault('invalid', `service ${nameOf(service)} is no job`, {
    remedy: 'give it deploy.mode: replicated-job or global-job, or x-schedule',
  });
}

function put({ snapshot, now }: WishContext, service: Service, job: Job): Change[] {
  const expect = snapshot.get('service', service.id)?.modRevision ?? 0;
  return [{ table: 'service', key: service.id, value: { ...service, updatedAtMs: now, job }, expect }];
}
