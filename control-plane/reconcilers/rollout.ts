/** How a new revision takes over, a few seats at a time, and what happens when its tasks fail. */
import type { Rollout, Service } from '#proto/model/service.ts';
import { isTerminal, type Task } from '#proto/model/task.ts';
import { restart } from './restart.ts';
import {
  activeOf,
  called,
  endedByItself,
  endOf,
  hasFailed,
  isUp,
  latestOf,
  never,
  ranForMs,
  type Seat,
} from './seats.ts';

export interface RolloutAdvice {
  /** Seats that may go over to the new revision now. */
  readonly move: ReadonlySet<Seat>;
  /** Where the rollout stands now, where that differs. */
  readonly rollout: Rollout | undefined;
  /** Go back to the spec before, for this reason. */
  readonly rollBack: string | undefined;
  readonly wakeAtMs: number;
}

const still: RolloutAdvice = { move: new Set(), rollout: undefined, rollBack: undefined, wakeAtMs: never };

/** Tasks of older revisions are to be replaced now: not while a rollout is paused. */
export function isRolling(service: Service): boolean {
  return service.rollout.state === 'updating' || service.rollout.state === 'rolling-back';
}

type Stage =
  | { readonly at: 'old' | 'moving' | 'failed' }
  /** Runs; it counts as settled from this instant. */
  | { readonly at: 'new'; readonly settledAtMs: number };

/** `seats`: those that the service wants; `away`: others, on nodes that are not heard, for which it waits. */
export function rollout(service: Service, seats: readonly Seat[], away: readonly Seat[], now: number): RolloutAdvice {
  if (!isRolling(service)) return still;
  const { update } = service.spec;
  const stages = seats.map((seat) => stageOf(service, seat));
  const failures = seats.flatMap((seat) => failureOf(service, seat) ?? []);
  const tooMany = failures.length > update.maxFailureRatio * seats.length;
  if (tooMany && update.failureAction !== 'continue') return stopped(service, failures[0]!, now);

  let wakeAtMs = never;
  let inFlight = 0;
  let unsettled = 0;
  stages.forEach((stage) => {
    if (stage.at === 'moving') inFlight++;
    else if (stage.at === 'new') {
      const nextAtMs = stage.settledAtMs + update.delayMs;
      if (stage.settledAtMs > now) unsettled++;
      if (nextAtMs > now) inFlight++;
      if (nextAtMs > now) wakeAtMs = Math.min(wakeAtMs, stage.settledAtMs > now ? stage.settledAtMs : nextAtMs);
    }
  });
  const old = seats.filter((_, index) => stages[index]!.at === 'old').sort(weakestFirst);
  // Tolerated failures: their seats try on at the pace of the restart policy and take nobody's turn.
  const retrying = seats.filter((seat, index) => stages[index]!.at === 'failed' && triesOn(service, seat, now));
  if (old.length + retrying.length > 0) {
    const room = update.parallelism === 0 ? old.length : Math.max(0, update.parallelism - inFlight);
    return { ...still, move: new Set([...old.slice(0, room), ...retrying]), wakeAtMs };
  }
  const moving = stages.some((stage) => stage.at === 'moving') || seats.some((seat) => isHandingOver(service, seat));
  const waiting = away.some((seat) => activeOf(seat).some((task) => task.revision !== service.revision));
  if (moving || unsettled > 0 || waiting) return { ...still, wakeAtMs };
  return { ...still, rollout: finished(service, failures, now) };
}

function stageOf(service: Service, seat: Seat): Stage {
  const active = activeOf(seat);
  const current = active.filter((task) => task.revision === service.revision);
  const up = current.find(isUp);
  if (up) return { at: 'new', settledAtMs: up.stateAtMs + service.spec.update.monitorMs };
  const latest = latestOf(seat);
  if (current.length === 0 && latest && latest.revision === service.revision && isTerminal(latest.state)) {
    // A successor that has ended well does not hold the seat that its forerunner still holds.
    if (latest.state === 'complete') return active.length > 0 ? { at: 'failed' } : { at: 'new', settledAtMs: 0 };
  }
  if (failureOf(service, seat)) return { at: 'failed' };
  if (current.length > 0) return { at: 'moving' };
  return active.length > 0 ? { at: 'old' } : { at: 'moving' };
}

/** Tasks of both revisions hold the seat: who went over may itself be leaving, and only while the rollout goes on must the older one go. */
function isHandingOver(service: Service, seat: Seat): boolean {
  const revisions = new Set(activeOf(seat).map(({ revision }) => revision));
  return revisions.size > 1 && revisions.has(service.revision);
}

/** An older task still holds the seat, and the restart policy has not given up its successor. */
function triesOn(service: Service, seat: Seat, now: number): boolean {
  const latest = latestOf(seat);
  if (!latest || !activeOf(seat).some((task) => task.revision !== service.revision)) return false;
  if (latest.revision !== service.revision || !endedByItself(latest)) return true;
  return restart(seat, service.revision, service.spec.restart, now).verdict === 'start';
}

/** The first task of the new revision in this seat that failed during this rollout, soon after it began to run or before. */
function failureOf(service: Service, seat: Seat): Task | undefined {
  const { startedAtMs } = service.rollout;
  return seat.tasks.find(
    (task) =>
      task.revision === service.revision &&
      task.createdAtMs >= startedAtMs &&
      (hasFailed(task) || (task.state === 'running' && task.health === 'unhealthy')) &&
      (ranForMs(task) <= service.spec.update.monitorMs || task.health === 'unhealthy'),
  );
}

function stopped(service: Service, failure: Task, now: number): RolloutAdvice {
  const reason = `${called(failure)} of revision ${failure.revision} on ${failure.nodeName || 'no node'}: ${endOf(failure)}`;
  const rollingBack = service.rollout.state === 'rolling-back';
  if (service.spec.update.failureAction === 'rollback' && !rollingBack && service.previous) {
    return { ...still, rollBack: reason };
  }
  const message = rollingBack ? `the rollback failed too: ${reason}` : reason;
  return { ...still, rollout: { ...service.rollout, state: 'paused', message, finishedAtMs: now } };
}

function finished(service: Service, failures: readonly Task[], now: number): Rollout {
  const state = service.rollout.state === 'rolling-back' ? 'rolled-back' : 'completed';
  const failed = failures.length > 0 ? `, ${failures.length} seats failed on the way` : '';
  return { ...service.rollout, state, message: `${service.rollout.message}${failed}`, finishedAtMs: now };
}

/** What does not work loses nothing by going first. */
function weakestFirst(a: Seat, b: Seat): number {
  return Number(activeOf(a).some(isUp)) - Number(activeOf(b).some(isUp)) || a.slot - b.slot;
}
