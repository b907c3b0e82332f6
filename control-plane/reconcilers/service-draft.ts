/** A service and its tasks as one decision leaves them: the books hear of each task at once, the store of all of them in one transaction. */

import type { Change, Table, Tables } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Autoscaled } from '#proto/model/autoscale.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import { isJob } from '#proto/model/job.ts';
import type { Service, TaskTemplate } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import type { Books } from './books.ts';
import { never } from './seats.ts';

export interface DecisionContext {
  readonly snapshot: Snapshot;
  /** Told of every placement at once; the caller reverts them when the changes are not committed. */
  readonly books: Books;
  /** Wall clock, ms. */
  readonly now: number;
  readonly newId: () => string;
  /** What the autoscaler wants to be written down of the service; undefined: nothing new. */
  readonly autoscaled?: (service: Service) => Autoscaled | undefined;
}

export class ServiceDraft {
  readonly context: DecisionContext;
  /** As it is to be. */
  service: Service;
  readonly #before: Service;
  readonly #tasks = new Map<TaskId, Task>();
  readonly #touched = new Set<TaskId>();
  readonly #volumes = new Set<string>();
  readonly #guards = new Map<string, Change>();
  readonly #others: Change[] = [];
  #nodeIds: Map<string, NodeId> | undefined;
  #wakeAtMs = never;

  constructor(context: DecisionContext, service: Service) {
    this.context = context;
    this.#before = service;
    this.service = service;
    for (const task of context.snapshot.tasksOfService(service.id)) this.#tasks.set(task.id, task);
  }

  /** All of its tasks, as they are to be. */
  get tasks(): ReadonlyMap<TaskId, Task> {
    return this.#tasks;
  }

  /** Look again at this instant; Infinity: never. */
  get wakeAtMs(): number {
    return this.#wakeAtMs;
  }

  wake(atMs: number): void {
    this.#wakeAtMs = Math.min(this.#wakeAtMs, atMs);
  }

  put(task: Task): void {
    this.#tasks.set(task.id, task);
    this.#touched.add(task.id);
    this.context.books.ledger.setTask(task.id, task);
  }

  forget(task: Task): void {
    this.#tasks.delete(task.id);
    this.#touched.add(task.id);
    this.context.books.planForgotten(task.id);
  }

  /** The volume's record is written as the books have it. */
  putVolume(name: string): void {
    this.#volumes.add(name);
  }

  /**
   * What is decided about a singleton's task on that node writes both records, be it unchanged: of two such decisions on one
   * snapshot, and of one and a change of the node's lease, only one can be committed.
   */
  guard(node: NodeId): void {
    const { snapshot } = this.context;
    this.service = { ...this.service };
    const value = snapshot.node(node);
    if (value) this.#guards.set(node, this.#change('node', node, value));
  }

  /** Takes the service's own record away. */
  remove(): void {
    this.write(this.#change('service', this.service.id, undefined));
  }

  /** What else belongs to the transaction. */
  write(...changes: readonly Change[]): void {
    this.#others.push(...changes);
  }

  /** Of the task's revision, where its record is still there. */
  templateOf(task: Task): TaskTemplate | undefined {
    return this.context.snapshot.revisionOf(this.service.id, task.revision)?.template;
  }

  nodeIdOf(name: string): NodeId | undefined {
    if (!this.#nodeIds) {
      this.#nodeIds = new Map();
      for (const node of this.context.snapshot.all('node')) this.#nodeIds.set(node.name, node.id);
    }
    return this.#nodeIds.get(name);
  }

  /** All that differs from the snapshot. */
  changes(): Change[] {
    const { snapshot, books } = this.context;
    const changes: Change[] = [...this.#volumes].map((name) => this.#change('volume', name, books.ledger.volume(name)));
    changes.push(...this.#guards.values());
    for (const id of this.#touched) {
      const value = this.#tasks.get(id);
      if (value || snapshot.task(id)) changes.push(this.#change('task', id, value));
    }
    // Tasks first: where one transaction cannot hold it all, a service's record goes after its last task.
    changes.push(...this.#others);
    const removed = this.#others.some((change) => change.table === 'service');
    if (!removed && this.service !== this.#before) {
      const change = this.#change('service', this.service.id, this.service);
      // A job's iteration is written down no later than its first task.
      if (isJob(this.service.spec)) changes.unshift(change);
      else changes.push(change);
    }
    return changes;
  }

  /** Takes what it planned out of the books again. */
  revert(): void {
    const { books, snapshot, now } = this.context;
    books.revert(snapshot, this.changes(), now, false);
  }

  #change<T extends Table>(table: T, key: string, value: Tables[T] | undefined): Change {
    const expect = this.context.snapshot.get(table, key)?.modRevision ?? 0;
    return { table, key, value, expect } as unknown as Change;
  }
}
