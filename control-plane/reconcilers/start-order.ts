/** `depends_on`: which services wait for which, and how far those are. Pure, from one look at the snapshot. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { replicasOf } from '#proto/model/autoscale.ts';
import { hasCompleted } from '#proto/model/completion.ts';
import { isJob, latestIteration } from '#proto/model/job.ts';
import type { Dependency, DependencyCondition } from '#proto/model/order.ts';
import type { Service } from '#proto/model/service.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import { restart } from './restart.ts';
import { activeOf, called, endedByItself, endOf, isSeated, isUp, type Seat, seatsOf } from './seats.ts';

/** Where something that is waited for stands: `why` says what is missing, or why it will not come. */
export type Standing =
  | { readonly at: 'holds' }
  | { readonly at: 'waits'; readonly why: string }
  | { readonly at: 'failed'; readonly why: string };

const holds: Standing = { at: 'holds' };
const waitsFor = 'waits for ';

/**
 * Whether the service's current revision may begin. Asked until its first task has been given to a node, and then no more:
 * what happens to a dependency later stops nobody, nor holds back restarts and further replicas. `tasks`: the service's.
 */
export function mayStart(snapshot: Snapshot, service: Service, tasks: Iterable<Task>, now: number): Standing {
  const { dependsOn } = service.spec;
  if (dependsOn.length === 0) return holds;
  for (const task of tasks) if (task.revision === service.revision && task.nodeId !== '') return holds;
  const waits: string[] = [];
  for (const dependency of dependsOn) {
    const standing = standingOf(snapshot, service.spec.project, dependency, now);
    if (standing.at === 'failed' && dependency.required) return standing;
    if (standing.at === 'waits') waits.push(standing.why);
  }
  return waits.length === 0 ? holds : { at: 'waits', why: `${waitsFor}${waits.join(', and for ')}` };
}

const aims: Readonly<Record<DependencyCondition, string>> = {
  service_started: 'to start',
  service_healthy: 'to be healthy',
  service_completed_successfully: 'to complete',
};

/** Every seat of the other service's current revision must meet the condition. */
function standingOf(
  snapshot: Snapshot,
  project: string,
  { service: name, condition }: Dependency,
  now: number,
): Standing {
  const service = snapshot.serviceNamed(project, name);
  const inVain = (why: string): Standing => ({
    at: 'failed',
    why: `waits for ${name} ${aims[condition]} in vain: ${why}`,
  });
  if (!service || service.removing) return inVain(service ? 'it is being removed' : 'there is no such service');
  const { mode, restart: policy } = service.spec;
  if (isJob(service.spec)) {
    const why = jobStanding(service, snapshot.tasksOfService(service.id), condition);
    return typeof why === 'string' ? inVain(why) : why ? holds : { at: 'waits', why: `${name} ${aims[condition]}` };
  }
  if (service.rollout.state === 'paused') return inVain(`its rollout stopped: ${service.rollout.message}`);
  if (condition === 'service_completed_successfully' && policy.condition === 'any')
    return inVain('it is restarted whenever it ends');
  const seats = [...seatsOf(snapshot.tasksOfService(service.id), mode, () => '').values()].filter(isSeated);
  let missing = mode === 'global' ? (seats.length === 0 ? 1 : 0) : replicasOf(service) - seats.length;
  let nowhere = '';
  for (const seat of seats) {
    const standing = seatStanding(service, seat, condition, now);
    if (typeof standing === 'string') return inVain(standing);
    if (standing) continue;
    missing++;
    nowhere ||= nowhereOf(seat);
  }
  return missing > 0 ? { at: 'waits', why: `${name} ${aims[condition]}${nowhere}` } : holds;
}

/** What keeps the seat's task from any node, in brackets; of one that waits for others itself, they say it. Empty: it has one. */
function nowhereOf(seat: Seat): string {
  const pending = activeOf(seat).find(({ nodeId, message }) => nodeId === '' && message !== '');
  if (!pending || pending.message.startsWith(waitsFor)) return '';
  return ` (${called(pending)}: ${pending.message})`;
}

/** As `seatStanding`, of the newest iteration of a job. */
function jobStanding(service: Service, tasks: Iterable<Task>, condition: DependencyCondition): boolean | string {
  const newest = latestIteration(service);
  if (condition === 'service_healthy') return 'it is a job: it completes';
  if (!newest || newest.revision !== service.revision) return false;
  if (condition === 'service_started') return newest.state !== 'running' || [...tasks].some(hasStarted);
  return newest.state === 'failed' ? newest.message : hasCompleted(service, tasks);
}

/** True where the seat meets the condition, false where it may yet, and otherwise why it will not. */
function seatStanding(service: Service, seat: Seat, condition: DependencyCondition, now: number): boolean | string {
  const current = seat.tasks.filter(({ revision }) => revision === service.revision);
  const latest = current.at(-1);
  if (!latest) return false;
  const up = current.find(isUp);
  switch (condition) {
    case 'service_started':
      if (current.some(hasStarted)) return true;
      break;
    case 'service_healthy':
      if (up?.health === 'healthy') return true;
      if (up) return `${called(up)} has no health check`;
      break;
    case 'service_completed_successfully':
      if (latest.state === 'complete') return true;
  }
  const isGivenUp =
    endedByItself(latest) && restart(seat, service.revision, service.spec.restart, now).verdict === 'leave';
  return isGivenUp ? `${called(latest)}: ${endOf(latest)}` : false;
}

function hasStarted(task: Task): boolean {
  return task.state === 'running' || task.startedAtMs > 0;
}

/** Services that are removed together go in the order of their dependencies: the one that must stop before this one; undefined: none. */
export function stopsAfter(snapshot: Snapshot, service: Service): Service | undefined {
  const { project, name } = service.spec;
  for (const dependent of snapshot.dependentsOf(project, name)) {
    if (!dependent.removing || dependent.id === service.id || needs(snapshot, service, dependent)) continue;
    for (const task of snapshot.tasksOfService(dependent.id)) if (occupiesNode(task)) return dependent;
  }
  return undefined;
}

/** Rollbacks may have made services depend on each other: then neither waits. */
function needs(snapshot: Snapshot, service: Service, other: Service): boolean {
  const seen = new Set<string>([service.spec.name]);
  const way = [service];
  for (let next = way.pop(); next; next = way.pop()) {
    for (const { service: name } of next.spec.dependsOn) {
      if (name === other.spec.name) return true;
      const dependency = seen.has(name) ? undefined : snapshot.serviceNamed(service.spec.project, name);
      seen.add(name);
      if (dependency) way.push(dependency);
    }
  }
  return false;
}
