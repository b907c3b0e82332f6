/** Unhealthy tasks that are to be isolated (`x-on-unhealthy: isolate`): who runs on for inspection, without its seat, and until when. */
import type { Service } from '#proto/model/service.ts';
import { isActive, isIsolated, type Task } from '#proto/model/task.ts';
import { restart } from './restart.ts';
import { type Advice, endOf, never, type Opinion, oldestFirst, type Seat } from './seats.ts';

export interface IsolationFacts {
  readonly service: Service;
  /** Wall clock, ms. */
  readonly now: number;
  /** Its health check asks for it. */
  isolates(task: Task): boolean;
  seatOf(task: Task): Seat;
  /** Why a task may not stay on its node; empty when it may. */
  leave(task: Task): string;
}

/** Says of each task that is unhealthy whether it is isolated, and of each that is when that is over. One walk over the tasks. */
export function isolation(facts: IsolationFacts, tasks: Iterable<Task>): Advice {
  const { service, now } = facts;
  const { atMost, forMs } = service.spec.isolation;
  const opinions: Opinion[] = [];
  const unhealthy: Task[] = [];
  let wakeAtMs = never;
  let isolated = 0;
  for (const task of tasks) {
    if (isIsolated(task)) {
      const why = isOver(facts, task);
      if (why !== '') opinions.push({ kind: 'stop', task, why });
      else {
        isolated++;
        wakeAtMs = Math.min(wakeAtMs, task.isolatedUntilMs);
      }
    } else if (awaitsVerdict(task) && facts.isolates(task)) unhealthy.push(task);
  }
  for (const task of unhealthy.sort(oldestFirst)) {
    const refusal = isolated < atMost ? noReplacement(facts, task) : `${isolated} of ${atMost} isolated already`;
    if (refusal === '') {
      isolated++;
      wakeAtMs = Math.min(wakeAtMs, now + forMs);
      opinions.push({ kind: 'isolate', task, untilMs: now + forMs, why: `isolated: ${endOf(task)}` });
    } else opinions.push({ kind: 'end', task, why: `not isolated: ${refusal}` });
  }
  return { opinions, wakeAtMs };
}

function awaitsVerdict(task: Task): boolean {
  return task.health === 'unhealthy' && task.state === 'running' && isActive(task) && !task.isolationRefused;
}

/** Why it ends now; empty: it goes on. */
function isOver({ service, now, leave }: IsolationFacts, task: Task): string {
  if (task.isolatedUntilMs <= now) return 'its isolation is over';
  // One that was rolled back from is what somebody wants to look at.
  if (task.revision < service.revision) return `revision ${service.revision} replaces revision ${task.revision}`;
  return leave(task);
}

/** Why nothing would come into its seat, where it would do no more than stand in the way; empty: another one would. */
function noReplacement({ service, now, seatOf, leave }: IsolationFacts, task: Task): string {
  if (task.revision !== service.revision) return `revision ${service.revision} is to replace it`;
  const next = restart(seatOf(task), task.revision, service.spec.restart, now);
  return next.verdict === 'leave' ? 'its restart policy allows no replacement' : leave(task);
}
