/** A cluster for the deciders: records in a snapshot, one decision after another applied to it, and agents played by the test. */
import { Books } from '#control-plane/reconcilers/books.ts';
import { type Decision, decideService } from '#control-plane/reconcilers/decide-service.ts';
import type { WishContext } from '#control-plane/reconcilers/service-changes.ts';
import type { Applied, Change, Table, Tables } from '#control-plane/store/records.ts';
import { keyOf, LiveSnapshot } from '#control-plane/store/snapshot.ts';
import { newId, seededRandom } from '#proto/kernel/random.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import { isAbsent, isActive, isWanted, occupiesNode, type Task, waitsForSeat } from '#proto/model/task.ts';
import { aRevision } from './builders.ts';

export class DecidedCluster {
  readonly snapshot = new LiveSnapshot();
  now = 1_000_000;
  readonly #random = seededRandom(7);
  readonly books: Books;
  #revision = 1;

  constructor(nodes: readonly Node[], services: readonly Service[] = [], tasks: readonly Task[] = []) {
    this.books = new Books(this.snapshot, this.now);
    for (const node of nodes) this.put('node', node);
    for (const service of services) {
      this.put('service', service);
      this.put('revision', aRevision(service));
    }
    for (const task of tasks) this.put('task', task);
  }

  get wish(): WishContext {
    return { snapshot: this.snapshot, now: this.now, newId: () => newId(this.#random) };
  }

  put<T extends Table>(table: T, value: Tables[T]): void {
    this.commit([{ table, key: keyOf(table, value), value, expect: 0 } as unknown as Change]);
  }

  commit(changes: readonly Change[]): void {
    this.#revision++;
    const applied: Applied[] = [];
    for (const { table, key, value } of changes) {
      const change = this.snapshot.apply(table, key, value, this.#revision);
      if (change) applied.push(change);
    }
    this.snapshot.revision = this.#revision;
    this.books.apply({ revision: this.#revision, changes: applied }, this.now);
  }

  /** One decision about the service; the books know of it, the snapshot does not. */
  consider(service: Service): Decision {
    return decideService({ ...this.wish, books: this.books }, service.id);
  }

  /** One decision about the service, committed. */
  decide(service: Service): Decision {
    const decision = this.consider(service);
    this.commit(decision.changes);
    return decision;
  }

  /** Decisions, and agents that do what they are told, until nothing changes. Time stands still, but for `passMs` at once where it is waited for. */
  settle(service: Service, { passMs = 0 } = {}): void {
    for (let round = 0; round < 200; round++) {
      const { changes, wakeAtMs } = this.decide(service);
      const obeyed = this.obey(service);
      if (changes.length > 0 || obeyed > 0) continue;
      if (wakeAtMs > this.now + passMs) return;
      this.now = wakeAtMs;
    }
    throw new Error('it does not come to rest');
  }

  /** Assigned tasks are prepared and run as they are told, tasks told to stop have stopped; returns how many. */
  obey(service: Service): number {
    let count = 0;
    for (const task of [...this.snapshot.tasksOfService(service.id)]) {
      if (!occupiesNode(task) || isAbsent(task)) continue;
      if (!isWanted(task)) this.report(task, { state: 'shutdown', finishedAtMs: this.now });
      else if (waitsForSeat(task)) {
        if (task.state === 'ready') continue;
        this.report(task, { state: 'ready' });
      } else if (task.state !== 'running') this.report(task, { state: 'running', startedAtMs: this.now });
      else continue;
      count++;
    }
    return count;
  }

  report(task: Task, fields: Partial<Task>): void {
    this.put('task', { ...task, stateAtMs: this.now, ...fields });
  }

  service(service: Service): Service {
    return this.snapshot.service(service.id)!;
  }

  /** All its tasks, by slot and age. */
  tasks(service: Service): Task[] {
    return [...this.snapshot.tasksOfService(service.id)].sort(
      (a, b) => a.slot - b.slot || a.createdAtMs - b.createdAtMs || (a.nodeName < b.nodeName ? -1 : 1),
    );
  }

  active(service: Service): Task[] {
    return this.tasks(service).filter(isActive);
  }
}
