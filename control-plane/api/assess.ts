/** How far a service is, in words: pure, for `progress`, `services` and everybody who waits. */

import { isRolling } from '#control-plane/reconcilers/rollout.ts';
import { mayStart, stopsAfter } from '#control-plane/reconcilers/start-order.ts';
import { satisfies } from '#control-plane/scheduler/constraint.ts';
import { requestOf } from '#control-plane/scheduler/filters.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { isLasting } from '#control-plane/scheduler/place.ts';
import { preempt } from '#control-plane/scheduler/preempt.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ServiceProgress } from '#proto/gen/gantry/v1/operator.ts';
import { replicasOf } from '#proto/model/autoscale.ts';
import { type ServiceId, type TaskId, taskName } from '#proto/model/ids.ts';
import { isJob, isPerNode } from '#proto/model/job.ts';
import type { Service } from '#proto/model/service.ts';
import { exitWords, isActive, isTerminal, occupiesNode, type Task } from '#proto/model/task.ts';
import { awaitedIteration, iterationProgress } from './assess-job.ts';

/** So many failures of one seat's tasks are not an accident. */
const failuresToGiveUp = 3;
/** A task that no node may take for so long will not be taken by itself. */
const pendingToGiveUpMs = 8_000;
/** And so long where every node refuses it for a reason that only people change. */
const refusedToGiveUpMs = 5_000;
/** A task whose node tries in vain for so long is worth no more waiting, though the node goes on trying. */
const stuckToGiveUpMs = 5_000;

export interface AssessOptions {
  readonly now: number;
  /** Failures before this do not count: they are of earlier tries. */
  readonly sinceMs: number;
  /** A rollback is what was asked for. */
  readonly rollback: boolean;
  /** Since when an active task has been seen with an error; empty where nobody watches. */
  readonly stuckSinceMs?: ReadonlyMap<TaskId, number>;
}

/** `name`: how the service was called, for when it is gone. */
export function assess(snapshot: Snapshot, id: ServiceId, name: string, options: AssessOptions): ServiceProgress {
  const service = snapshot.service(id);
  const base = { serviceId: id as string, name, running: 0, wanted: 0 };
  if (!service) return { ...base, outcome: 'converged', message: 'removed' };
  const tasks = [...snapshot.tasksOfService(id)];
  if (service.removing) {
    const left = tasks.filter(occupiesNode).length;
    const first = stopsAfter(snapshot, service);
    const message = first
      ? `waits for ${first.spec.name}, which depends on it, to stop`
      : `stopping ${left} ${left === 1 ? 'task' : 'tasks'}`;
    return { ...base, running: left, outcome: 'progressing', message: left > 0 ? message : 'removing' };
  }
  if (isJob(service.spec)) return assessJob(snapshot, service, tasks, name, options);
  const wanted = wantedTasks(snapshot, service);
  const current = tasks.filter((task) => task.revision === service.revision);
  const done = current.filter(
    (task) =>
      isReady(task) || (task.state === 'complete' && isLast(task, tasks) && service.spec.restart.condition !== 'any'),
  );
  const progress = { ...base, running: done.length, wanted };
  const outcome = (outcome: string, message: string): ServiceProgress => ({ ...progress, outcome, message });
  const { rollout } = service;
  if (rollout.state === 'paused')
    return outcome(
      'failed',
      `the rollout stopped: ${rollout.message} (gantry logs ${service.spec.name} · gantry rollout undo ${service.spec.name})`,
    );
  if (!options.rollback && rollout.finishedAtMs >= options.sinceMs && rollout.state === 'rolled-back')
    return outcome('failed', `rolled back: ${rollout.message}`);
  if (rollout.state === 'held' && rollout.holdUntilMs === 0) return outcome('held', rollout.message);
  const extra = tasks.filter((task) => isActive(task) && task.revision !== service.revision).length;
  const surplus = current.filter((task) => isActive(task)).length - wanted;
  const rolling = isRolling(service);
  if (done.length >= wanted && extra === 0 && surplus <= 0 && !rolling) return outcome('converged', '');
  const standing = mayStart(snapshot, service, tasks, options.now);
  if (standing.at === 'failed') return outcome('failed', standing.why);
  if (standing.at === 'waits') return outcome('progressing', standing.why);
  const hopeless = failing(service, current, options.sinceMs) ?? stuckTooLong(snapshot, service, current, options);
  if (hopeless) return outcome('failed', hopeless);
  if (rollout.state === 'held') return outcome('progressing', heldWords(service, options.now));
  if (done.length < wanted) return outcome('progressing', waitingFor(current, wanted, extra));
  if (extra > 0) return outcome('progressing', `replacing ${extra} of the revision before`);
  return outcome(
    'progressing',
    surplus > 0 ? `stopping ${surplus} more than wanted` : `watching the new tasks: ${rollout.message}`,
  );
}

function assessJob(
  snapshot: Snapshot,
  service: Service,
  tasks: readonly Task[],
  name: string,
  options: AssessOptions,
): ServiceProgress {
  const base = { serviceId: service.id as string, name, running: 0, wanted: 0 };
  const awaited = awaitedIteration(service, options.sinceMs);
  const progress = iterationProgress(service, tasks, () => fittingNodes(snapshot, service));
  if (!awaited || !progress) return { ...base, outcome: 'converged', message: waitsFor(service) };
  const { completed, wanted } = progress;
  const outcome = (outcome: string, message: string): ServiceProgress => ({
    ...base,
    running: completed,
    wanted,
    outcome,
    message,
  });
  if (awaited.state === 'complete') return outcome('converged', 'completed');
  if (awaited.state !== 'running') return outcome('failed', `${awaited.state}: ${awaited.message}`);
  const current = tasks.filter(({ iteration }) => iteration === awaited.number);
  // With a number of attempts, the iteration itself says when they are used up.
  const endless = service.spec.restart.condition !== 'none' && service.spec.restart.maxAttempts === 0;
  const hopeless =
    (endless ? failing(service, current, options.sinceMs) : undefined) ??
    stuckTooLong(snapshot, service, current, options);
  return hopeless
    ? outcome('failed', hopeless)
    : outcome('progressing', `${completed} of ${wanted} completed${troubleOf(current)}`);
}

function waitsFor({ spec, job }: Service): string {
  const rests = spec.schedule?.suspend || job?.suspended;
  return rests ? 'suspended' : spec.schedule ? 'waits for its schedule' : 'nothing to do';
}

function troubleOf(current: readonly Task[]): string {
  const blocked = current.find((task) => isActive(task) && !isReady(task) && (task.error || task.state === 'pending'));
  if (!blocked || reasonOf(blocked) === '') return '';
  return `; ${taskName(blocked)} is ${blocked.state}: ${reasonOf(blocked)}`;
}

function heldWords({ rollout }: Service, now: number): string {
  return `${rollout.message} (in ${Math.max(1, Math.ceil((rollout.holdUntilMs - now) / 1_000))} s)`;
}

/** Tasks that the service should have: replicas, or one for each node that may take one. */
export function wantedTasks(snapshot: Snapshot, service: Service): number {
  if (!isPerNode(service.spec)) return replicasOf(service);
  return fittingNodes(snapshot, service);
}

function fittingNodes(snapshot: Snapshot, service: Service): number {
  const { constraints } = requestOf(service.id, service.spec, service.spec.template);
  let nodes = 0;
  for (const node of snapshot.all('node'))
    if (
      node.state === 'ready' &&
      node.availability === 'active' &&
      constraints.every((constraint) => satisfies(constraint, node))
    )
      nodes++;
  return nodes;
}

/** It does its work: running and wanted, healthy where that is checked. */
export function isReady(task: Task): boolean {
  return task.state === 'running' && isActive(task) && (task.health === '' || task.health === 'healthy');
}

function seatOf(task: Task): string {
  return task.slot > 0 ? String(task.slot) : task.nodeId;
}

function isLast(task: Task, tasks: readonly Task[]): boolean {
  return !tasks.some((other) => seatOf(other) === seatOf(task) && other.createdAtMs > task.createdAtMs);
}

/** Why it keeps failing, where it does: the newest failure of the seat that failed most. */
function failing(service: Service, current: readonly Task[], sinceMs: number): string | undefined {
  const seats = new Map<string, { failures: number; newest: Task | undefined; ready: boolean }>();
  for (const task of current) {
    const seat = seats.get(seatOf(task)) ?? { failures: 0, newest: undefined, ready: false };
    seats.set(seatOf(task), seat);
    if (isReady(task)) seat.ready = true;
    if ((task.state !== 'failed' && task.state !== 'rejected') || task.createdAtMs < sinceMs) continue;
    seat.failures++;
    if (!seat.newest || task.stateAtMs >= seat.newest.stateAtMs) seat.newest = task;
  }
  const limit = service.spec.restart.condition === 'none' ? 1 : failuresToGiveUp;
  let worst: { failures: number; newest: Task } | undefined;
  for (const { failures, newest, ready } of seats.values())
    if (!ready && newest && failures >= limit && failures > (worst?.failures ?? 0)) worst = { failures, newest };
  return (
    worst &&
    `${taskName(worst.newest)} failed ${worst.failures} ${worst.failures === 1 ? 'time' : 'times'}: ${reasonOf(worst.newest)}`
  );
}

/** Why nothing goes on: all that is waited for fits no node, or its nodes cannot make it. */
function stuckTooLong(
  snapshot: Snapshot,
  service: Service,
  current: readonly Task[],
  { now, sinceMs, stuckSinceMs }: AssessOptions,
): string | undefined {
  const waiting = current.filter((task) => isActive(task) && !isReady(task));
  const isPendingTooLong = (task: Task) => {
    const forMs = now - Math.max(task.createdAtMs, sinceMs);
    if (reasonOf(task) === '' || forMs < refusedToGiveUpMs) return false;
    return forMs >= pendingToGiveUpMs || isRefused(snapshot, service, task);
  };
  const isStuck = (task: Task) =>
    task.state === 'pending'
      ? isPendingTooLong(task)
      : isTroubled(task) && now - (stuckSinceMs?.get(task.id) ?? now) >= stuckToGiveUpMs;
  const [first] = waiting;
  if (!first || !waiting.every(isStuck)) return undefined;
  const reason = `${taskName(first)} is ${first.state}: ${reasonOf(first)}`;
  return first.state === 'pending' ? reason : `${reason}; ${first.nodeName} goes on trying`;
}

/** Every node that it may be on refuses it for as long as nobody acts. */
function isRefused(snapshot: Snapshot, service: Service, task: Task): boolean {
  const { spec } = service;
  const template = snapshot.revisionOf(service.id, task.revision)?.template ?? spec.template;
  const only = [...snapshot.all('node')].find(({ name }) => isPerNode(spec) && name === task.nodeName)?.id;
  const ledger = Ledger.of(snapshot);
  const request = requestOf(service.id, spec, template, { only });
  const canPreempt = spec.priority > 0 && preempt(ledger, request, spec.priority, (id) => snapshot.tasksOnNode(id));
  return !canPreempt && isLasting(ledger, request);
}

/** It is on its way, and its node says what is in that way. */
export function isTroubled(task: Task): boolean {
  return isActive(task) && !isReady(task) && task.state !== 'pending' && task.error !== '';
}

function waitingFor(current: readonly Task[], wanted: number, extra: number): string {
  const active = current.filter((task) => isActive(task));
  const blocked = active.find((task) => task.state === 'pending' && reasonOf(task) !== '');
  if (blocked) return `${taskName(blocked)} is pending: ${reasonOf(blocked)}`;
  const failed = current
    .filter((task) => (task.state === 'failed' || task.state === 'rejected') && isLastFailure(task, current))
    .sort((a, b) => b.stateAtMs - a.stateAtMs)[0];
  if (failed) return `${taskName(failed)} ${failed.state}: ${reasonOf(failed)}; trying again`;
  const unhealthy = active.find((task) => task.state === 'running' && !isReady(task));
  if (unhealthy?.health === 'unhealthy') return `${taskName(unhealthy)} runs, and its health check fails`;
  if (unhealthy) return `${taskName(unhealthy)} runs; waiting for its health check`;
  const slow = active.filter((task) => task.state !== 'running');
  const slowest = slow.find(isTroubled) ?? slow[0];
  if (slowest) {
    const reason = slowest.error ? `${slowest.error}; trying again` : slowest.message;
    return `${taskName(slowest)} is ${slowest.state}${reason && reason !== slowest.state ? `: ${reason}` : ''}`;
  }
  if (extra > 0) return `replacing ${extra} of the revision before`;
  const missing = wanted - active.length;
  return `waiting for ${missing} ${missing === 1 ? 'task' : 'tasks'} to be made`;
}

function isLastFailure(task: Task, tasks: readonly Task[]): boolean {
  return !tasks.some(
    (other) =>
      seatOf(other) === seatOf(task) &&
      other.createdAtMs > task.createdAtMs &&
      (isReady(other) || isTerminal(other.state)),
  );
}

function reasonOf(task: Task): string {
  if (task.error) return task.error;
  if (task.message) return task.message;
  if (task.oomKilled) return 'it ran out of memory';
  return isTerminal(task.state) && task.finishedAtMs > 0 ? `it ended with ${exitWords(task.exitCode)}` : '';
}
