/** What a rebalancing would move now, as if each move were over at once. Pure. */
import { adviseMove, type Move, whyFixed } from '#control-plane/reconcilers/rebalance.ts';
import { ownerOf } from '#control-plane/reconcilers/shared-network.ts';
import { requestOf } from '#control-plane/scheduler/filters.ts';
import { given } from '#control-plane/scheduler/generic.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { Scheduler } from '#control-plane/scheduler/place.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { ServiceId, TaskId } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';

export interface RebalancePlan {
  readonly moves: readonly Move[];
  /** There are more than `mostMoves`. */
  readonly more: boolean;
}

/** In a preview; what really is moved is not bounded. */
const mostMoves = 500;

/** `only`: this service's tasks alone. `now`: wall clock ms. Faults: `precondition`, where it is never moved. */
export function planRebalance(snapshot: Snapshot, now: number, only?: Service): RebalancePlan {
  const scheduler = new Scheduler(Ledger.of(snapshot));
  const owners = new Set([...snapshot.all('service')].map(({ spec }) => ownerOf(spec)));
  const moved = new Map<TaskId, Task>();
  const counts = new Map<TaskId, number>();
  const moves: Move[] = [];
  const view = {
    snapshot,
    scheduler,
    now,
    tasksOf: (id: ServiceId) => [...snapshot.tasksOfService(id)].map((task) => moved.get(task.id) ?? task),
    isShared: (name: string) => owners.has(name),
    movesOf: ({ id }: Task) => counts.get(id) ?? 0,
  };
  const why = only ? whyFixed(view, only) : '';
  if (why !== '') throw new Fault('precondition', `tasks of ${only!.spec.name} are not moved: ${why}`);
  for (let before = -1; moves.length > before && moves.length < mostMoves; ) {
    before = moves.length;
    for (const service of only ? [only] : inOrder(snapshot.all('service'))) {
      for (let advice = adviseMove(view, service); advice.kind === 'move'; advice = adviseMove(view, service)) {
        if (moves.length === mostMoves) return { moves, more: true };
        moves.push(advice.move);
        carryOut(advice.move, service);
      }
    }
  }
  return { moves, more: false };

  function carryOut({ taskId, to, toName }: Move, { id, spec }: Service): void {
    const task = moved.get(taskId) ?? snapshot.task(taskId)!;
    counts.set(taskId, (counts.get(taskId) ?? 0) + 1);
    scheduler.ledger.setTask(taskId, undefined);
    const { generic } = requestOf(id, spec, spec.template).reservations;
    const usage = scheduler.ledger.usageOf(to)!;
    const next: Task = { ...task, nodeId: to, nodeName: toName, generic: given(generic, usage) };
    scheduler.ledger.setTask(taskId, next);
    moved.set(taskId, next);
  }
}

/** By name, so that a preview and what follows agree. */
export function inOrder(services: Iterable<Service>): Service[] {
  const name = ({ spec }: Service) => `${spec.project}/${spec.name}`;
  return [...services].sort((a, b) => (name(a) < name(b) ? -1 : 1));
}
