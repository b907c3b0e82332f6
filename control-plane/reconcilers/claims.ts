/** Places that are kept for pending tasks while those who are in the way leave: nobody else takes them meanwhile. */
import type { Ledger } from '#control-plane/scheduler/ledger.ts';
import type { Preemption } from '#control-plane/scheduler/preempt.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { isWanted, occupiesNode, type Task } from '#proto/model/task.ts';
import type { Opinion } from './seats.ts';

interface Eviction {
  /** The task that the place is for. */
  readonly by: TaskId;
  readonly why: string;
}

export class Claims {
  readonly #ledger: Ledger;
  readonly #evictions = new Map<TaskId, Eviction>();
  readonly #victims = new Map<TaskId, readonly TaskId[]>();

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** Keeps the place for a pending task; `why` is what the victims are told. */
  keep(task: Task, { usage, victims }: Preemption, why: string): void {
    const { id: nodeId, name: nodeName } = usage.node;
    const generic = task.reservations.generic.map(({ kind, count, names }) => ({ kind, count, names }));
    this.#ledger.claim({ ...task, nodeId, nodeName, generic, state: 'assigned' });
    this.#victims.set(
      task.id,
      victims.map(({ id }) => id),
    );
    for (const { id } of victims) this.#evictions.set(id, { by: task.id, why });
  }

  /** Gives the place up, where there is one: the task is to be looked at anew, or is gone. */
  release(id: TaskId): void {
    this.#ledger.release(id);
    for (const victim of this.#victims.get(id) ?? []) this.#evictions.delete(victim);
    this.#victims.delete(id);
  }

  /** Tasks that leave for others: at once, for there is no place where a successor could come up first. */
  evictions(tasks: Iterable<Task>): Opinion[] {
    return [...tasks].flatMap((task): Opinion[] => {
      const why = isWanted(task) && occupiesNode(task) ? this.#evictionOf(task.id) : '';
      return why === '' ? [] : [{ kind: 'stop', task, why }];
    });
  }

  #evictionOf(victim: TaskId): string {
    const eviction = this.#evictions.get(victim);
    if (!eviction) return '';
    if (this.#ledger.isClaimed(eviction.by)) return eviction.why;
    this.release(eviction.by);
    return '';
  }
}
