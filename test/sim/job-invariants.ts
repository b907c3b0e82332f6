/** What must hold of jobs whatever goes wrong. */
import { assert } from '#proto/kernel/errors.ts';
import type { ServiceId, TaskId } from '#proto/model/ids.ts';
import { isJob, latestIteration } from '#proto/model/job.ts';
import type { Service } from '#proto/model/service.ts';
import { isAbsent, isTerminal, type Task } from '#proto/model/task.ts';
import type { Invariant } from './invariants.ts';

export function jobInvariants(): readonly Invariant[] {
  return [instantsRunOnce(), completionsAreFinal(), noMoreAtOnce];
}

/** It has work that will end; of a schedule there is always more to come. */
export function isUnderWay(service: Service): boolean {
  return !service.spec.schedule && latestIteration(service)?.state === 'running';
}

function instantsRunOnce(): Invariant {
  const numbers = new Map<string, number>();
  return {
    name: 'an instant of a schedule has one iteration at most, and what is decided stays so',
    step({ changes }) {
      for (const change of changes) {
        if (change.table !== 'service' || !change.after?.job) continue;
        const { id, spec, job } = change.after;
        const before = change.before?.job;
        if (before) {
          assert(job.iteration >= before.iteration, `iterations of ${spec.name} went back to ${job.iteration}`);
          assert(job.decidedUntilMs >= before.decidedUntilMs, `instants of ${spec.name} are decided again`);
        }
        for (const { number, dueAtMs } of job.iterations) {
          if (dueAtMs === 0) continue;
          const known = numbers.get(`${id}/${dueAtMs}`) ?? number;
          assert(known === number, `${spec.name} has iterations ${known} and ${number} of ${dueAtMs}`);
          numbers.set(`${id}/${dueAtMs}`, number);
        }
      }
    },
  };
}

function completionsAreFinal(): Invariant {
  const completed = new Map<string, TaskId>();
  return {
    name: 'what a job has completed is not done again',
    step({ changes }) {
      for (const change of changes) {
        if (change.table !== 'task' || !change.after?.iteration) continue;
        const { after, before } = change;
        const seat = seatOf(after);
        const by = completed.get(seat);
        assert(
          (before && seatOf(before) === seat) || by === undefined,
          `${after.id} is to do what ${by} completed: ${seat}`,
        );
        if (after.state === 'complete') completed.set(seat, after.id);
      }
    },
  };
}

const noMoreAtOnce: Invariant = {
  name: 'a job begins no more tasks at once than it may, and each belongs to an iteration that is written down',
  step({ changes }, { truth }) {
    const jobs = new Set<ServiceId>();
    for (const change of changes)
      if (change.table === 'task' && !change.before && change.after) jobs.add(change.after.serviceId);
    for (const id of jobs) {
      const service = truth.service(id);
      if (!service || !isJob(service.spec)) continue;
      const atOnce = new Map<number, number>();
      for (const task of truth.tasksOfService(id)) {
        const { iteration, state } = task;
        assert(
          iteration > 0 && iteration <= service.job!.iteration,
          `${service.spec.name} has no iteration ${iteration}`,
        );
        if (!isTerminal(state) && !isAbsent(task)) atOnce.set(iteration, (atOnce.get(iteration) ?? 0) + 1);
      }
      const most = service.spec.maxConcurrent || Number.POSITIVE_INFINITY;
      for (const [iteration, count] of atOnce)
        assert(count <= most, `iteration ${iteration} of ${service.spec.name} has ${count} tasks at once`);
    }
  },
};

function seatOf({ serviceId, iteration, slot, nodeId }: Task): string {
  return `${serviceId}/${iteration}/${slot || nodeId}`;
}
