/** Rollouts in the simulator: gates, what operators wish of rollouts, and what must hold of them whatever goes wrong. */
import { pauseRollout, resumeRollout } from '#control-plane/reconcilers/rollout-changes.ts';
import { same } from '#control-plane/reconcilers/same.ts';
import { isUp } from '#control-plane/reconcilers/seats.ts';
import { rollbackService } from '#control-plane/reconcilers/service-changes.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { assert } from '#proto/kernel/errors.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type TaskId, taskName } from '#proto/model/ids.ts';
import type { Gate, Service } from '#proto/model/service.ts';
import { isAbsent, isActive, isTerminal, type Task } from '#proto/model/task.ts';
import type { Invariant } from './invariants.ts';
import type { Wish } from './workload.ts';
import type { World } from './world.ts';

/** Most services have none. */
export function randomGates(random: Random): readonly Gate[] {
  if (random.int(4) > 0) return [];
  const canary: Gate = { kind: 'canary', count: 1, percent: 0, holdMs: random.int(3) * 700 };
  const pause: Gate = { kind: 'pause', count: 0, percent: 50, holdMs: 0 };
  return random.int(3) === 0 ? [canary, pause] : [canary];
}

export const rolloutWishes: readonly Wish[] = [
  {
    name: 'pause a rollout',
    make: (world) =>
      withRollout(world, ['updating', 'held', 'rolling-back'], ({ id, spec }) =>
        world.wish(`pause ${spec.name}`, (context) => pauseRollout(context, id)),
      ),
  },
  {
    name: 'resume a rollout',
    make: (world) =>
      withRollout(world, ['paused', 'held'], ({ id, spec }) =>
        world.wish(`resume ${spec.name}`, (context) => resumeRollout(context, id)),
      ),
  },
  {
    name: 'back to a version',
    make: (world) =>
      withRollout(world, undefined, ({ id, spec }) => {
        const numbers = [...world.truth.versionsOfService(id)].map(({ number }) => number).sort((a, b) => a - b);
        const number = numbers[world.random.int(Math.max(1, numbers.length))];
        if (number === undefined) return;
        world.wish(`${spec.name} to version ${number}`, (context) => rollbackService(context, id, number));
      }),
  },
];

function withRollout(
  world: World,
  states: readonly Service['rollout']['state'][] | undefined,
  act: (service: Service) => void,
): void {
  const services = [...world.truth.all('service')]
    .filter(({ rollout, removing }) => !removing && (states?.includes(rollout.state) ?? true))
    .sort((a, b) => (a.spec.name < b.spec.name ? -1 : 1));
  const service = services[world.random.int(Math.max(1, services.length))];
  if (service) act(service);
}

/** A rollout takes no more turns at once than its policy allows: seats that it emptied or doubled, and whose new task has not been up yet. */
export function rolloutsKeepTheirPace(): Invariant {
  const everUp = new Set<TaskId>();
  /** By `service/revision`: seats that a task which was up has left, or is to leave, for its turn. */
  const turns = new Map<string, Set<string>>();
  /** By service: the revision in whose rollout it was scaled. Seats may be given up in the middle of their turns then. */
  const scaled = new Map<string, number>();
  return {
    name: 'a rollout takes no more turns at once than its policy allows',
    step({ changes }, { truth }) {
      const looked = new Set<string>();
      for (const change of changes) {
        if (change.table === 'node') forgetSeats(turns, (change.after ?? change.before)!.name);
        if (change.table === 'service' && change.before?.spec.replicas !== change.after?.spec.replicas)
          scaled.set(change.key, change.after?.revision ?? 0);
        if (change.table !== 'task') continue;
        const { before, after } = change;
        if (!after) everUp.delete(change.key as TaskId);
        else if (isUp(after)) everUp.add(after.id);
        const task = (after ?? before)!;
        const service = truth.service(task.serviceId);
        if (!service || !after) continue;
        const key = `${service.id}/${service.revision}`;
        const begun = !before && isTurn(service, after) && hasOldUp(truth, service, after);
        const left = before && isActive(before) && isUp(before) && !isActive(after) && isTurn(service, after);
        if (!begun && !left) continue;
        if (!turns.has(key)) turns.set(key, new Set());
        turns.get(key)!.add(seatOf(after));
        looked.add(service.id);
      }
      for (const id of looked) {
        const service = truth.service(id as Service['id'])!;
        const { parallelism, failureAction, maxFailureRatio } = service.spec.update;
        // Tolerated failures try on beside the others; and a way back brings what is down back at once.
        if (service.rollout.state !== 'updating' || failureAction === 'continue' || maxFailureRatio > 0) continue;
        if (parallelism === 0 || scaled.get(id) === service.revision) continue;
        const seats = turns.get(`${id}/${service.revision}`) ?? new Set();
        const open = [...seats].filter((seat) => isOpen(truth, service, seat, everUp));
        assert(
          open.length <= parallelism,
          `${service.spec.name} takes ${open.length} turns at once, not ${parallelism}`,
        );
      }
    },
  };
}

/** A node that changes may suit a seat no longer, which then takes no turn any more. */
function forgetSeats(turns: Map<string, Set<string>>, node: string): void {
  for (const seats of turns.values()) seats.delete(node);
}

/** For the sake of the revision it replaces, not because its node was lost or drained. */
export function isTurn({ revision }: Service, task: Task): boolean {
  return task.why.includes(`revision ${revision} replaces revision`);
}

function hasOldUp(truth: Snapshot, service: Service, task: Task): boolean {
  return [...truth.tasksOfService(service.id)].some(
    (other) => seatOf(other) === seatOf(task) && other.revision !== service.revision && isUp(other),
  );
}

function isOpen(truth: Snapshot, service: Service, seat: string, everUp: ReadonlySet<TaskId>): boolean {
  const tasks = [...truth.tasksOfService(service.id)].filter((task) => seatOf(task) === seat);
  const current = tasks.filter((task) => task.revision === service.revision);
  if (current.some((task) => everUp.has(task.id))) return false;
  // A node that takes no tasks has no seat of a global service any more.
  const node = [...truth.all('node')].find(({ name }) => name === seat);
  if (service.spec.mode === 'global' && node?.availability !== 'active') return false;
  const stopping = tasks.filter((task) => !isTerminal(task.state) && !isActive(task) && !isAbsent(task));
  const isStopping = stopping.some((task) => isTurn(service, task));
  return isStopping || current.some((task) => isActive(task) && isTurn(service, task));
}

export function seatOf(task: Task): string {
  return task.slot > 0 ? String(task.slot) : task.nodeName;
}

/** Old and new, one that takes over, and one more of a rollout that was overtaken; beside those that are back with their nodes, and not up yet. */
const mostOfOneSeat = 4;

export const seatsAreNotCrowded: Invariant = {
  name: 'a seat has a few tasks at most',
  step({ changes }, { truth }) {
    const services = new Set(
      changes.flatMap((change) => (change.table === 'task' && change.after ? [change.after] : [])),
    );
    for (const task of services) {
      const others = [...truth.tasksOfService(task.serviceId)].filter(
        (one) =>
          seatOf(one) === seatOf(task) &&
          one.iteration === task.iteration &&
          isActive(one) &&
          (one.returnedAtMs === 0 || isUp(one)),
      );
      assert(others.length <= mostOfOneSeat, `${taskName(task)} is one of ${others.length} in its seat`);
    }
  },
};

export const rolloutsEndWithAReason: Invariant = {
  name: 'a rollout that stops says why, and one that went back is at what was there before',
  step({ changes }, { truth }) {
    for (const change of changes) {
      if (change.table !== 'service' || !change.after) continue;
      const { rollout, spec, id } = change.after;
      const was = change.before?.rollout.state;
      if (rollout.state === was) continue;
      if (rollout.state === 'paused' || rollout.state === 'held')
        assert(rollout.message !== '', `${spec.name} is ${rollout.state} for no reason`);
      if (rollout.state !== 'rolling-back' || was === 'paused') continue;
      const known = [...[...truth.versionsOfService(id)].map((version) => version.spec), change.before?.previous];
      const isThere = known.filter((one) => same(one?.template, spec.template)).length > 1;
      assert(isThere, `${spec.name} goes back to what was no version of it`);
    }
  },
};

/** Who has not come up waits for nobody any more when another revision is on its way. */
export const overtakenAreStopped: Invariant = {
  name: 'no successor stays that never came up and was overtaken',
  calm({ truth, clock }) {
    for (const service of truth.all('service')) {
      if (service.rollout.state !== 'updating' && service.rollout.state !== 'rolling-back') continue;
      const active = [...truth.tasksOfService(service.id)].filter((task) => isActive(task) && task.nodeId !== '');
      for (const task of active) {
        const holder = active.find((other) => other.id !== task.id && seatOf(other) === seatOf(task) && isUp(other));
        const waitsMs = clock.now() - task.createdAtMs;
        const isOvertaken = holder && !isUp(task) && task.revision !== service.revision && task.iteration === 0;
        assert(
          !isOvertaken || waitsMs < 20_000,
          `${taskName(task)} of revision ${task.revision} waits for ${waitsMs} ms`,
        );
      }
    }
  },
};
