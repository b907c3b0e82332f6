/** Jobs: their iterations, another one by hand, and schedules that rest. */
import { runJob as decideRun, suspendJob as decideSuspend } from '#control-plane/reconcilers/job-changes.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type {
  ChangeResponse,
  JobSummary,
  ListRequest,
  ServiceRequest,
  SuspendJobRequest,
} from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { Zones } from '#proto/model/calendar.ts';
import { isJob } from '#proto/model/job.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { toWire } from '#proto/model/wire.ts';
import { wantedTasks } from './assess.ts';
import { iterationProgress } from './assess-job.ts';
import { findService, nameOfService } from './names.ts';
import type { OperatorParts } from './parts.ts';
import { change } from './services.ts';

/** Instants that are told of a schedule. */
const toldInstants = 3;

export function runJob(parts: OperatorParts, request: ServiceRequest): Promise<ChangeResponse> {
  return change(parts, request.services, (context, { id }) => decideRun(context, id), 'running');
}

export function suspendJob(parts: OperatorParts, request: SuspendJobRequest): Promise<ChangeResponse> {
  const { services, suspended } = request;
  const word = suspended ? 'suspended' : 'resumed';
  return change(parts, services, (context, { id }) => decideSuspend(context, id, suspended), word);
}

/** All jobs, or those of a project, or the one that is named. Faults: `not-found`, `invalid` (no job). */
export function jobsOf(snapshot: Snapshot, request: ListRequest, now: number): JobSummary[] {
  const services = request.service === '' ? [...snapshot.all('service')] : [findService(snapshot, request.service)];
  const jobs = services.filter(({ spec }) => isJob(spec));
  if (request.service !== '' && jobs.length === 0)
    throw new Fault('invalid', `service ${nameOfService(services[0]!)} is no job`, { remedy: 'see gantry job ls' });
  return jobs
    .filter(({ spec }) => request.project === '' || spec.project === request.project)
    .sort((a, b) => (nameOfService(a) < nameOfService(b) ? -1 : 1))
    .map((service) => {
      const tasks = snapshot.tasksOfService(service.id);
      const progress = iterationProgress(service, tasks, () => wantedTasks(snapshot, service));
      const { completed = 0, wanted = 0 } = progress ?? {};
      const rests = service.job?.suspended === true || service.removing;
      return {
        service: toWire<Service>(service),
        nextAtMs: rests ? [] : nextInstants(service.spec, Math.max(now, service.job?.decidedUntilMs ?? 0)),
        completed,
        wanted,
      };
    });
}

/** The next instants of its schedule; none while the file suspends it. */
function nextInstants({ schedule }: ServiceSpec, afterMs: number): number[] {
  if (!schedule || schedule.suspend) return [];
  const calendar = new Zones().calendar(schedule.cron, schedule.timezone);
  const instants: number[] = [];
  for (let at = calendar.next(afterMs); at !== undefined && instants.length < toldInstants; at = calendar.next(at))
    instants.push(at);
  return instants;
}

/** When a job will run, for who plans it. */
export function scheduleWords(spec: ServiceSpec, now: number): string[] {
  const { schedule } = spec;
  if (!schedule) return isJob(spec) ? ['runs when it is applied, no more by itself'] : [];
  if (schedule.suspend) return ['suspended: it will not run by itself'];
  const instants = nextInstants(spec, now).map((at) => inZone(at, schedule.timezone));
  return [instants.length > 0 ? `runs at ${instants.join(', ')}` : 'will never run'];
}

/** `2026-03-29 02:30:00 Europe/Berlin`. */
function inZone(atMs: number, timezone: string): string {
  const zone = timezone || 'UTC';
  // Swedish dates are those of ISO 8601.
  const text = new Intl.DateTimeFormat('sv-SE', { timeZone: zone, dateStyle: 'short', timeStyle: 'medium' });
  return `${text.format(atMs)} ${zone}`;
}
