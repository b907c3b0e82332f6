/** How a new revision takes over, a few seats at a time, where it waits, and what happens when its tasks fail. */
import type { Rollout, Service, UpdatePolicy } from '#proto/model/service.ts';
import { compareStates, isActive, isTerminal, type Task } from '#proto/model/task.ts';
import { nextGate } from './gates.ts';
import { restart } from './restart.ts';
import {
  activeOf,
  called,
  endedByItself,
  endOf,
  hasFailed,
  isStopping,
  isUp,
  latestOf,
  never,
  ranForMs,
  type Seat,
  wasNowhere,
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

/** A task that its node cannot prepare, or that no node takes, has failed after so long, or after the monitor where that is longer. */
export const troubleMs = 5_000;
export const pendingMs = 15_000;

/** Tasks of older revisions are to be replaced in the end: not while a rollout is paused. */
export function isRolling({ rollout: { state } }: Service): boolean {
  return state === 'updating' || state === 'held' || state === 'rolling-back';
}

/** Its spec is on its way in, and nobody knows yet whether it works. */
export function isUnproven({ rollout: { state, resumes, restart } }: Service): boolean {
  return !restart && (state === 'updating' || state === 'held' || (state === 'paused' && resumes !== 'rolling-back'));
}

/** Which policy holds now: a way back has its own. */
export function policyOf({ spec, rollout: { state, resumes } }: Service): UpdatePolicy {
  return state === 'rolling-back' || (state === 'paused' && resumes === 'rolling-back') ? spec.rollback : spec.update;
}

export type Stage =
  | { readonly at: 'old' | 'moving' | 'failed' }
  /** Runs; it counts as settled from this instant. */
  | { readonly at: 'new'; readonly settledAtMs: number };

/** `seats`: those that the service wants; `away`: others, on nodes that are not heard, for which it waits. */
export function rollout(service: Service, seats: readonly Seat[], away: readonly Seat[], now: number): RolloutAdvice {
  if (!isRolling(service)) return still;
  const policy = policyOf(service);
  const { gatesPassed } = service.rollout;
  const stages = seats.map((seat) => stageOf(service, seat, now));
  const failures = seats.flatMap((seat) => failureOf(service, seat, now) ?? []);
  const gate = service.rollout.restart ? undefined : nextGate(policy, gatesPassed, seats.length);
  const inCanary = gate?.gate.kind === 'canary';
  if (failures.length > 0 && (inCanary || isTooMany(policy, failures.length, seats.length)))
    return stopped(service, failures[0]!, inCanary, now);

  let wakeAtMs = Math.min(never, ...seats.map((seat) => troubleAt(service, seat, now)));
  // A seat whose node fell silent during its turn still takes it.
  let inFlight = away.filter((seat) => stageOf(service, seat, now).at === 'moving').length;
  let unsettled = 0;
  let settledAtMs = 0;
  stages.forEach((stage) => {
    if (stage.at === 'moving') inFlight++;
    else if (stage.at === 'new') {
      const nextAtMs = stage.settledAtMs + policy.delayMs;
      if (stage.settledAtMs > now) unsettled++;
      if (nextAtMs > now) inFlight++;
      if (nextAtMs > now) wakeAtMs = Math.min(wakeAtMs, stage.settledAtMs > now ? stage.settledAtMs : nextAtMs);
      settledAtMs = Math.max(settledAtMs, stage.settledAtMs);
    }
  });
  const old = seats.filter((_, index) => stages[index]!.at === 'old').sort(weakestFirst);
  // Tolerated failures: their seats try on at the pace of the restart policy and take nobody's turn.
  const retrying = seats.filter((seat, index) => stages[index]!.at === 'failed' && triesOn(service, seat, now));
  const over = seats.length - old.length;
  const allWell =
    unsettled === 0 &&
    stages.every(({ at }) => at === 'old' || at === 'new') &&
    !seats.some((seat) => isHandingOver(service, seat));
  if (gate && over >= gate.seats && allWell) {
    const { index, gate: what } = gate;
    const untilMs = what.holdMs === 0 ? 0 : settledAtMs + what.holdMs;
    if (untilMs > 0 && untilMs <= now) return { ...still, rollout: passing(service, index) };
    const held = heldAt(service, index, untilMs, over, seats.length);
    const wake = untilMs > 0 ? Math.min(wakeAtMs, untilMs) : wakeAtMs;
    return { ...still, rollout: held, wakeAtMs: wake };
  }
  if (old.length + retrying.length > 0) {
    const atMost = policy.parallelism === 0 ? old.length : Math.max(0, policy.parallelism - inFlight);
    const room = Math.min(atMost, gate ? Math.max(0, gate.seats - over) : old.length);
    const free = gate ? [] : old.filter((seat) => losesNothing(service, seat));
    return { ...still, move: new Set([...old.slice(0, room), ...free, ...retrying]), wakeAtMs };
  }
  const moving = stages.some(({ at }) => at === 'moving') || seats.some((seat) => isHandingOver(service, seat));
  const waiting = away.some((seat) => activeOf(seat).some((task) => task.revision !== service.revision));
  if (moving || unsettled > 0 || waiting) return { ...still, wakeAtMs };
  return { ...still, rollout: finished(service, failures, now) };
}

function isTooMany({ maxFailureRatio, failureAction }: UpdatePolicy, failures: number, seats: number): boolean {
  return failures > maxFailureRatio * seats && failureAction !== 'continue';
}

/** How far the seat is. */
export function stageOf(service: Service, seat: Seat, now: number): Stage {
  const active = activeOf(seat);
  const current = active.filter((task) => task.revision === service.revision);
  const up = current.find(isUp);
  if (up) {
    const sinceMs = Math.max(up.stateAtMs, up.adoptedAtMs);
    const troubledMs = troubledSinceMs(service, up);
    return { at: 'new', settledAtMs: troubledMs < never ? troubledMs : sinceMs + policyOf(service).monitorMs };
  }
  const latest = latestOf(seat);
  if (current.length === 0 && latest && latest.revision === service.revision && isTerminal(latest.state)) {
    // A successor that has ended well does not hold the seat that its forerunner still holds.
    if (latest.state === 'complete') return active.length > 0 ? { at: 'failed' } : { at: 'new', settledAtMs: 0 };
  }
  if (failureOf(service, seat, now)) return { at: 'failed' };
  if (current.length > 0) return { at: 'moving' };
  // Told to stop for its turn: the seat is empty until the old task has ended, and then first in line.
  if (active.length === 0 && (seat.tasks.some(isStopping) || latest?.revision === service.revision))
    return { at: 'moving' };
  return { at: 'old' };
}

/** Tasks of both revisions hold the seat: who went over may itself be leaving, and only while the rollout goes on must the older one go. */
function isHandingOver(service: Service, seat: Seat): boolean {
  const revisions = new Set(activeOf(seat).map(({ revision }) => revision));
  return revisions.size > 1 && revisions.has(service.revision);
}

/** It takes nobody's turn: going back, what is down already; going forward, what was never anywhere. */
function losesNothing({ rollout }: Service, seat: Seat): boolean {
  return rollout.state === 'rolling-back' ? !activeOf(seat).some(isUp) : wasNowhere(seat);
}

/** An older task still holds the seat, and the restart policy has not given up its successor. */
function triesOn(service: Service, seat: Seat, now: number): boolean {
  const latest = latestOf(seat);
  if (!latest || !activeOf(seat).some((task) => task.revision !== service.revision)) return false;
  if (latest.revision !== service.revision || !endedByItself(latest)) return true;
  return restart(seat, service.revision, service.spec.restart, now).verdict === 'start';
}

/** The first task of the new revision in this seat that failed during this rollout, soon after it began to run or before. */
function failureOf(service: Service, seat: Seat, now: number): Task | undefined {
  const { startedAtMs, failuresSinceMs } = service.rollout;
  const { monitorMs } = policyOf(service);
  return seat.tasks.find((task) => {
    const begunAtMs = Math.max(task.createdAtMs, task.adoptedAtMs);
    if (task.revision !== service.revision || begunAtMs < Math.max(startedAtMs, failuresSinceMs)) return false;
    if (task.state === 'running' && (task.health === 'unhealthy' || task.isolatedUntilMs > 0)) return true;
    const ranMs = task.adoptedAtMs > 0 ? task.stateAtMs - task.adoptedAtMs : ranForMs(task);
    if (hasFailed(task)) return ranMs <= monitorMs || task.health === 'unhealthy';
    return isActive(task) && troubledSinceMs(service, task) <= now;
  });
}

/** When a task that does not come up is given up, as it is now: its node says what is in the way, or no node takes it. */
function troubledSinceMs(service: Service, task: Task): number {
  const { monitorMs } = policyOf(service);
  // Its node cannot give it the limits that it goes on under.
  if (task.state === 'running' && task.adoptedAtMs > 0 && task.error !== '')
    return task.adoptedAtMs + Math.max(monitorMs, troubleMs);
  if (compareStates(task.state, 'running') >= 0) return never;
  const sinceMs = Math.max(task.createdAtMs, task.startAfterMs);
  if (task.nodeId !== '') return task.error === '' ? never : sinceMs + Math.max(monitorMs, troubleMs);
  // It may wait for what it depends on; and going back, what was there before found a place.
  const mayWait = service.spec.dependsOn.length > 0 || service.rollout.state === 'rolling-back';
  return mayWait ? never : sinceMs + Math.max(monitorMs, pendingMs);
}

function troubleAt(service: Service, seat: Seat, now: number): number {
  const latest = latestOf(seat);
  if (!latest || latest.revision !== service.revision || !isActive(latest)) return never;
  const atMs = troubledSinceMs(service, latest);
  return atMs > now ? atMs : never;
}

function stopped(service: Service, failure: Task, inCanary: boolean, now: number): RolloutAdvice {
  const what = `${called(failure)} of revision ${failure.revision} on ${failure.nodeName || 'no node'}: ${endOf(failure)}`;
  const rollingBack = service.rollout.state === 'rolling-back';
  const reason = inCanary ? `canary ${what}` : what;
  const goesBack = inCanary || service.spec.update.failureAction === 'rollback';
  if (goesBack && !rollingBack && !service.rollout.restart && service.previous) return { ...still, rollBack: reason };
  const message = rollingBack ? `the rollback failed too: ${reason}` : reason;
  const resumes = rollingBack ? 'rolling-back' : 'updating';
  return {
    ...still,
    rollout: { ...service.rollout, state: 'paused', resumes, message, finishedAtMs: now, holdUntilMs: 0 },
  };
}

/** undefined where the record says it already. */
function heldAt(service: Service, index: number, untilMs: number, over: number, seats: number): Rollout | undefined {
  const { rollout, revision, spec } = service;
  const what = policyOf(service).gates.some(({ kind }) => kind === 'canary') && index === 0 ? 'canary' : 'pause';
  const how = untilMs > 0 ? 'goes on when they have been well for long enough' : `gantry rollout resume ${spec.name}`;
  const message = `${what}: ${over} of ${seats} ${seats === 1 ? 'seat runs' : 'seats run'} revision ${revision}; ${how}`;
  const held: Rollout = { ...rollout, state: 'held', message, gatesPassed: index, holdUntilMs: untilMs };
  const isSame = rollout.state === 'held' && rollout.message === message && rollout.holdUntilMs === untilMs;
  return isSame && rollout.gatesPassed === index ? undefined : held;
}

function passing({ rollout, revision }: Service, index: number): Rollout {
  const message = `to revision ${revision}`;
  return { ...rollout, state: 'updating', message, gatesPassed: index + 1, holdUntilMs: 0 };
}

function finished(service: Service, failures: readonly Task[], now: number): Rollout {
  const state = service.rollout.state === 'rolling-back' ? 'rolled-back' : 'completed';
  const failed = failures.length > 0 ? `, ${failures.length} seats failed on the way` : '';
  const message = `${service.rollout.message}${failed}`;
  return { ...service.rollout, state, message, finishedAtMs: now, holdUntilMs: 0 };
}

/** What does not work loses nothing by going first. */
function weakestFirst(a: Seat, b: Seat): number {
  return Number(activeOf(a).some(isUp)) - Number(activeOf(b).some(isUp)) || a.slot - b.slot;
}
