/** Has tasks of lower priority leave for those of a service that fit nowhere, for a few of them in one decision. */
import type { Request } from '#control-plane/scheduler/filters.ts';
import { preempt } from '#control-plane/scheduler/preempt.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { qualifiedName, type ServiceId } from '#proto/model/ids.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import type { Books } from './books.ts';
import { called } from './seats.ts';

/** The rest follows when these have their places. */
const mostTasks = 32;

export class MakeRoom {
  readonly #context: { readonly books: Books; readonly snapshot: Snapshot };
  readonly #spec: ServiceSpec;
  /** Services of which tasks must leave. */
  readonly evicts = new Set<ServiceId>();
  #left = mostTasks;

  constructor(context: { readonly books: Books; readonly snapshot: Snapshot }, spec: ServiceSpec) {
    this.#context = context;
    this.#spec = spec;
  }

  /** Keeps a place for the task, and says who leaves it; empty: nobody's leaving would help. */
  forTask(task: Task, request: Request): string {
    const { priority, project, name } = this.#spec;
    if (priority === 0 || this.#left === 0) return '';
    const { books, snapshot } = this.#context;
    const found = preempt(books.ledger, request, priority, (node) => snapshot.tasksOnNode(node));
    this.#left = found ? this.#left - 1 : 0;
    if (!found) return '';
    const { usage, victims } = found;
    books.claims.keep(task, found, `preempted by ${qualifiedName(project, name)} (priority ${priority})`);
    for (const { serviceId } of victims) this.evicts.add(serviceId);
    const [first, ...others] = victims;
    if (!first) return `waits for room on ${usage.node.name}, where tasks are stopping`;
    return `preempts ${called(first)}${others.length > 0 ? ` and ${others.length} more` : ''} on ${usage.node.name}`;
  }
}
