/** What one wanted seat needs now: a first task, another one, a successor for one that must go, or nothing. */
import { whyReplicas } from '#proto/model/autoscale.ts';
import type { Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { restart } from './restart.ts';
import {
  activeOf,
  called,
  endedByItself,
  endOf,
  isStopping,
  isUp,
  latestOf,
  type Opinion,
  type Seat,
} from './seats.ts';

export interface SeatFacts {
  readonly service: Service;
  readonly now: number;
  /** Tasks of other revisions than the service's are to go. */
  readonly rolling: boolean;
  /** The service's revision may not begin yet: what holds a seat of an older one goes on with it. */
  readonly held: boolean;
  /** Why a task may not stay on its node; empty when it may. */
  leave(task: Task): string;
  hasRevision(number: number): boolean;
  /** Why a task of another revision cannot go on under the service's, where others of it do; empty otherwise. */
  unadopted(task: Task): string;
}

/** `mayMove`: the rollout lets this seat go over to the new revision now. */
export function decideSeat(facts: SeatFacts, seat: Seat, mayMove: boolean): Opinion[] {
  const { service } = facts;
  const active = activeOf(seat);
  if (active.length === 0) return fill(facts, seat);
  const leaving = new Map<Task, string>();
  for (const task of active) {
    const why = facts.leave(task) || outdated(facts, task) || takenOver(active, task);
    if (why !== '') leaving.set(task, why);
  }
  const staying = active.filter((task) => !leaving.has(task));
  const best =
    staying.find((task) => isUp(task) && task.revision === service.revision) ?? staying.find(isUp) ?? staying[0];
  if (best) {
    const others = staying.filter((task) => task !== best && isUp(best) && !takesOver(staying, task));
    const startFirst = service.spec.update.order === 'start-first';
    // Who is to go waits for its successor to work, unless the policy stops it first anyway.
    const gone = isUp(best) || !startFirst ? [...leaving] : [];
    return [
      ...gone.map(([task, why]): Opinion => ({ kind: 'stop', task, why })),
      ...others.map((task): Opinion => ({ kind: 'stop', task, why: `${called(best)} holds its slot` })),
    ];
  }
  return replace(facts, seat, leaving, mayMove);
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
  return `revision ${service.revision} replaces revision ${task.revision}${why && `: ${why}`}`;
}

/** All of the seat's tasks are to go: by the update's order, and no sooner than the rollout allows, unless the node does not wait. */
function replace(facts: SeatFacts, seat: Seat, leaving: ReadonlyMap<Task, string>, mayMove: boolean): Opinion[] {
  const { service } = facts;
  const urgent = [...leaving.keys()].some((task) => facts.leave(task) !== '' || task.nodeId === '');
  if (!urgent && !mayMove) return [];
  const unassigned = [...leaving].every(([task]) => task.nodeId === '');
  if (service.spec.update.order === 'stop-first' && !unassigned) {
    return [...leaving].map(([task, why]) => ({ kind: 'stop', task, why }));
  }
  const [old, why] = [...leaving].at(-1)!;
  const start = begin(facts, seat, `replaces ${called(old)}: ${why}`);
  // What was never anywhere has nothing to hand over.
  return unassigned ? [...[...leaving].map(([task, why]): Opinion => ({ kind: 'stop', task, why })), ...start] : start;
}

/** Nobody holds the seat. */
function fill(facts: SeatFacts, seat: Seat): Opinion[] {
  const stopping = seat.tasks.filter(isStopping);
  const stopFirst = facts.service.spec.update.order === 'stop-first';
  if (stopFirst && stopping.length > 0) return [];
  const latest = latestOf(seat);
  if (!latest) {
    const global = facts.service.spec.mode === 'global';
    return begin(facts, seat, global ? `one on every node` : whyReplicas(facts.service));
  }
  // It had been taken away because there were to be fewer.
  if (isRefilled(facts.service, latest)) return begin(facts, seat, whyReplicas(facts.service));
  return begin(facts, seat, `replaces ${called(latest)}: ${latest.why || endOf(latest)}`);
}

function isRefilled({ autoscaled }: Service, latest: Task): boolean {
  return autoscaled !== undefined && !endedByItself(latest) && autoscaled.atMs >= latest.stateAtMs;
}

/** A new task, later or not at all where the restart policy says so of the last one. */
function begin(facts: SeatFacts, seat: Seat, why: string): Opinion[] {
  const { service, now } = facts;
  const latest = latestOf(seat);
  const revision = revisionFor(facts, latest);
  if (!latest || !endedByItself(latest) || latest.revision !== revision) {
    return [{ kind: 'start', seat, revision, startAfterMs: 0, why }];
  }
  const next = restart(seat, revision, service.spec.restart, now);
  if (next.verdict === 'leave') return [{ kind: 'note', task: latest, why: next.why }];
  return [{ kind: 'start', seat, revision, startAfterMs: next.startAfterMs, why: next.why }];
}

/** The service's revision; while a rollout is paused or held, the seat keeps the one it had. */
function revisionFor({ service, held, hasRevision }: SeatFacts, latest: Task | undefined): number {
  // A task that was never anywhere has not begun its revision.
  const stays = service.rollout.state === 'paused' || (held && latest?.nodeId !== '');
  const kept = latest && stays && hasRevision(latest.revision);
  return kept ? latest.revision : service.revision;
}
