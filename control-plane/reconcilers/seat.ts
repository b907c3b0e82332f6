/** What one wanted seat needs now: a first task, another one, a successor for one that must go, or nothing. */
import { isWhyReplicas, whyReplicas } from '#proto/model/autoscale.ts';
import type { Service } from '#proto/model/service.ts';
import {
  compareStates,
  isAbsent,
  isIsolated,
  isTerminal,
  occupiesNode,
  type Task,
  waitsForSeat,
} from '#proto/model/task.ts';
import type { SeatOrder } from './host-ports.ts';
import { restart } from './restart.ts';
import { isUnproven } from './rollout.ts';
import {
  absentOf,
  activeOf,
  called,
  endedByItself,
  endOf,
  isStopping,
  isUp,
  lastHolderOf,
  latestOf,
  type Opinion,
  type Seat,
} from './seats.ts';

export interface SeatFacts extends SeatOrder {
  readonly service: Service;
  readonly now: number;
  /** Tasks of other revisions than the service's are to go. */
  readonly rolling: boolean;
  /** Why a task may not stay on its node; empty when it may. */
  leave(task: Task): string;
  /** Its node goes down again and again: who took its seat meanwhile keeps it. */
  isPassedOver(task: Task): boolean;
  /** Of one that is absent: somebody else may have its seat. */
  mayReplace(absent: Task): boolean;
  /** Tasks of that revision have begun, and may be begun again. */
  mayKeep(number: number): boolean;
  /** Why a task of another revision cannot go on under the service's, where others of it do; empty otherwise. */
  unadopted(task: Task): string;
  /** A task that was prepared for its seat, and has it to itself, may run. */
  mayRun(task: Task): boolean;
}

/** `mayMove`: this seat may have the service's revision now: its turn has come, and what that depends on is there. */
export function decideSeat(facts: SeatFacts, seat: Seat, mayMove: boolean): Opinion[] {
  const { service } = facts;
  const active = activeOf(seat);
  if (active.length === 0) return fill(facts, seat, mayMove);
  const leaving = new Map<Task, string>();
  // Before its turn a seat is whole with what it has, and what leaves it is replaced by the same.
  const goesOver = mayMove || active.some(({ revision }) => revision === service.revision);
  for (const task of active) {
    const why = facts.leave(task) || (goesOver ? outdated(facts, task) : '') || takenOver(active, task);
    if (why !== '') leaving.set(task, why);
  }
  const holder = active.find((task) => !leaving.has(task) && !waitsForSeat(task));
  const waiting = active.filter((task) => !leaving.has(task) && waitsForSeat(task));
  const next = holder ? undefined : waiting.at(-1);
  for (const task of waiting) if (task !== next) leaving.set(task, `${called(holder ?? next!)} holds its slot`);
  if (next) return handOver(facts, seat, leaving, next);
  const here = active.filter((task) => !leaving.has(task));
  const staying = [...here.filter((task) => !facts.isPassedOver(task)), ...here.filter(facts.isPassedOver)];
  const best =
    staying.find((task) => isUp(task) && task.revision === service.revision) ?? staying.find(isUp) ?? staying[0];
  if (best) {
    const follows = (task: Task) => facts.isPassedOver(best) && task.nodeId !== '' && !facts.isPassedOver(task);
    const others = staying.filter((task) => task !== best && isUp(best) && !takesOver(staying, task) && !follows(task));
    const startFirst = facts.order === 'start-first';
    // Who is to go waits for its successor to work, unless the policy stops it first anyway.
    const gone = isUp(best) || !startFirst ? [...leaving] : overtaken(leaving);
    return [
      ...gone.map(([task, why]): Opinion => ({ kind: 'stop', task, why })),
      ...others.map((task): Opinion => ({ kind: 'stop', task, why: whyNotBoth(best, task), duplicate: true })),
    ];
  }
  return replace(facts, seat, leaving, goesOver);
}

function whyNotBoth(kept: Task, other: Task): string {
  return kept.returnedAtMs > other.createdAtMs
    ? `${called(kept)} is back on ${kept.nodeName}`
    : `${called(kept)} holds its slot`;
}

/** The task of its seat that was begun to take it over is up. */
function takenOver(active: readonly Task[], task: Task): string {
  const next = active.find((other) => other.successorOf === task.id && isUp(other));
  return next ? `moved to ${next.nodeName}, where ${called(next)} is up` : '';
}

/** It is about to take over from a task that stays until then. */
function takesOver(staying: readonly Task[], task: Task): boolean {
  return task.nodeId !== '' && staying.some((other) => other.id === task.successorOf);
}

function outdated(facts: SeatFacts, task: Task): string {
  const { service, rolling } = facts;
  if (!rolling || task.revision === service.revision) return '';
  const why = facts.unadopted(task);
  const how = facts.because && ` (${facts.because})`;
  return `revision ${service.revision} replaces revision ${task.revision}${why && `: ${why}`}${how}`;
}

/** All of the seat's tasks are to go: by the policy's order. */
function replace(facts: SeatFacts, seat: Seat, leaving: ReadonlyMap<Task, string>, goesOver: boolean): Opinion[] {
  const stop = ([task, why]: readonly [Task, string]): Opinion => ({ kind: 'stop', task, why });
  // What was never anywhere has nothing to hand over.
  const nowhere = [...leaving].filter(([task]) => task.nodeId === '');
  if (facts.order === 'stop-first' && nowhere.length < leaving.size) {
    const running = [...leaving.keys()].filter((task) => runsOn(facts, task));
    const holder = running.find(isUp) ?? running[0];
    if (!holder) return [...leaving].map(stop);
    const because = `replaces ${called(holder)}: ${leaving.get(holder)}`;
    const others = [...leaving].filter(([task]) => task !== holder);
    return [...others.map(stop), ...begin(facts, seat, goesOver, because, holder)];
  }
  const [old, why] = [...leaving].at(-1)!;
  const gone = new Map([...nowhere, ...overtaken(leaving)]);
  return [...[...gone].map(stop), ...begin(facts, seat, goesOver, `replaces ${called(old)}: ${why}`)];
}

/** It does what it is there for until its successor is prepared. What must leave its node goes at once, by its own reasons. */
function runsOn(facts: SeatFacts, task: Task): boolean {
  return task.state === 'running' && !waitsForSeat(task) && facts.leave(task) === '';
}

/** `next` is being prepared for the seat: whoever has that goes when it is ready, and then it runs. Before that nothing is known to be there. */
function handOver(facts: SeatFacts, seat: Seat, leaving: ReadonlyMap<Task, string>, next: Task): Opinion[] {
  const isPrepared = compareStates(next.state, 'ready') >= 0;
  const gone = [...leaving].filter(([task]) => isPrepared || !runsOn(facts, task));
  const stops = gone.map(([task, why]): Opinion => ({ kind: 'stop', task, why }));
  const others = seat.tasks.filter((task) => task !== next && occupiesNode(task) && isInTheWay(facts, next, task));
  // What was isolated meanwhile has the room that is to be its successor's.
  for (const task of others.filter(isIsolated))
    stops.push({ kind: 'stop', task, why: `${called(next)} is to have its room` });
  if (others.length > 0 || !facts.mayRun(next)) return stops;
  return [...stops, { kind: 'run', task: next, why: next.why }];
}

function isInTheWay(facts: SeatFacts, next: Task, other: Task): boolean {
  if (isAbsent(other)) return !facts.mayReplace(other);
  return !isIsolated(other) || (other.id === next.successorOf && other.nodeId === next.nodeId);
}

/** Of those that wait for their successor one is enough, the oldest that is up; others came back beside it, or were begun for a revision that never came to work. */
function overtaken(leaving: ReadonlyMap<Task, string>): [Task, string][] {
  const all = [...leaving];
  const up = [...leaving.keys()].filter(isUp);
  const holder = up.find((task) => takenOver(up, task) === '') ?? all.find(([task]) => task.nodeId !== '')?.[0];
  return all.filter(([task]) => task !== holder);
}

/** Nobody holds the seat. */
function fill(facts: SeatFacts, seat: Seat, mayMove: boolean): Opinion[] {
  const stopping = seat.tasks.filter(isStopping);
  const stopFirst = facts.order === 'stop-first';
  if (stopFirst && stopping.length > 0) return [];
  if (!absentOf(seat).every(facts.mayReplace)) return [];
  const latest = latestOf(seat);
  if (!latest) {
    const global = facts.service.spec.mode === 'global';
    return begin(facts, seat, mayMove, global ? `one on every node` : whyReplicas(facts.service));
  }
  // It had been taken away because there were to be fewer.
  if (!endedByItself(latest) && isWhyReplicas(latest.why))
    return begin(facts, seat, mayMove, whyReplicas(facts.service));
  return begin(facts, seat, mayMove, `replaces ${called(latest)}: ${latest.why || endOf(latest)}`);
}

/** A new task, later or not at all where the restart policy says so of the last one. */
function begin(facts: SeatFacts, seat: Seat, mayMove: boolean, why: string, after?: Task): Opinion[] {
  const { service, now } = facts;
  const goesOver = mayMove && service.rollout.state !== 'paused';
  const latest = goesOver ? latestOf(seat) : lastHolderOf(seat);
  const revision = revisionFor(facts, latest, mayMove);
  if (!latest || !endedByItself(latest) || latest.revision !== revision) {
    return [{ kind: 'start', seat, revision, startAfterMs: 0, why, after }];
  }
  const next = restart(seat, revision, service.spec.restart, now);
  if (next.verdict === 'leave') return [{ kind: 'note', task: latest, why: next.why }];
  return [{ kind: 'start', seat, revision, startAfterMs: next.startAfterMs, why: next.why, after }];
}

/** The service's revision; a seat whose turn has not come keeps the one it had, and one that was empty gets what is known to work. */
function revisionFor({ service, mayKeep }: SeatFacts, latest: Task | undefined, mayMove: boolean): number {
  const { state, startedAtMs } = service.rollout;
  if (state !== 'paused' && mayMove) return service.revision;
  const wasEmpty = !latest || (isTerminal(latest.state) && !endedByItself(latest) && latest.stateAtMs < startedAtMs);
  const kept = wasEmpty ? (isUnproven(service) ? service.previousRevision : 0) : latest.revision;
  return kept > 0 && mayKeep(kept) ? kept : service.revision;
}
