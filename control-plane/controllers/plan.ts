/** What would happen: the same deciders on a copy of the snapshot, with agents that do at once what they are told. Pure. */
import { Books } from '#control-plane/reconcilers/books.ts';
import { decideService } from '#control-plane/reconcilers/decide-service.ts';
import { called, stayingOf } from '#control-plane/reconcilers/seats.ts';
import { type ExplainedNode, type Explanation, explain } from '#control-plane/scheduler/explain.ts';
import { type Request, requestOf } from '#control-plane/scheduler/filters.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import { leaversOf } from '#control-plane/scheduler/preempt.ts';
import type { Applied, Change, Table } from '#control-plane/store/records.ts';
import { keyOf, LiveSnapshot, type Snapshot } from '#control-plane/store/snapshot.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import { type NodeId, type ServiceId, taskName } from '#proto/model/ids.ts';
import { isPerNode } from '#proto/model/job.ts';
import type { Node } from '#proto/model/node.ts';
import {
  isAbsent,
  isActive,
  isIsolated,
  isTerminal,
  isWanted,
  occupiesNode,
  type Task,
  waitsForSeat,
} from '#proto/model/task.ts';

/** As `PlannedTask` of the operator's protocol. */
export interface PlannedTask {
  /** `change`: its process goes on, with other limits. */
  readonly action: 'start' | 'stop' | 'change';
  readonly slot: number;
  /** Empty: no node takes it, for `reason`. */
  readonly node: string;
  readonly reason: string;
}

const tables: readonly Table[] = ['service', 'revision', 'task', 'node', 'network', 'volume', 'cluster'];
/** Looks until a service has settled: prepare, stop, start, finish, and some to spare, for each turn of its rollout. */
const looksOfTurn = 16;
/** What stands for a rollout's monitor and delay, as time passes here: in the meantime what was told to stop has stopped, and is in nobody's way. */
const pauseMs = 1;
/** A rollout of more turns than this is planned as if it took one. */
const mostTurns = 500;

/** What committing these edits of services would start and stop, by service; nothing is committed. `now`: wall clock ms. */
export function planTasks(
  snapshot: Snapshot,
  changes: readonly Change[],
  now: number,
): ReadonlyMap<ServiceId, readonly PlannedTask[]> {
  const scratch = new Scratch(snapshot, now);
  scratch.apply(changes);
  const ids = changes.flatMap((change) => (change.table === 'service' && change.value ? [change.value.id] : []));
  return scratch.settle(ids);
}

/** Why a task is where it is, or nowhere: the table as it would be if the task were placed now. */
export function explainTask(snapshot: Snapshot, task: Task): Explanation {
  const service = snapshot.service(task.serviceId);
  const revision = snapshot.revisionOf(task.serviceId, task.revision);
  if (!service || !revision) {
    return { rules: [], rows: [], summary: `${taskName(task)}: its service or revision is gone` };
  }
  const ledger = Ledger.of(snapshot);
  ledger.setTask(task.id, undefined);
  try {
    const only = isPerNode(service.spec) ? onlyNode(snapshot, task) : undefined;
    const others = [...snapshot.tasksOfService(service.id)].filter((other) => other.id !== task.id);
    const staying = stayingOf(others, task.revision);
    const request = requestOf(service.id, service.spec, revision.template, { only, staying });
    const { priority } = service.spec;
    const table = explain(ledger, request, task.nodeId);
    const node = task.nodeId === '' ? undefined : snapshot.node(task.nodeId);
    const { rules, rows } = priority > 0 ? withPriority(table, ledger, request, priority, snapshot) : table;
    return { rules, rows, summary: summaryOf(task, table.summary, node) };
  } catch (error) {
    if (!isFault(error)) throw error;
    return { rules: [], rows: [], summary: `${taskName(task)}: ${describe(error)}` };
  }
}

/** With a column more, of a service that others leave for: whether that would make room, and who they would be. */
function withPriority(
  { rules, rows, ...table }: Explanation,
  ledger: Ledger,
  request: Request,
  priority: number,
  snapshot: Snapshot,
): Explanation {
  const withLeavers = (row: ExplainedNode): ExplainedNode => {
    const id = row.nodeId as NodeId;
    const leavers = leaversOf(ledger, request, ledger.usageOf(id)!, priority, [...snapshot.tasksOnNode(id)]);
    const verdict = leavers ? '' : `nothing below ${priority} leaves it room`;
    const names = (leavers ?? []).map(called);
    const rank = names.length > 0 ? `${row.rank}; ${names.join(', ')} would leave` : row.rank;
    return { ...row, verdicts: [...row.verdicts, verdict], rank };
  };
  return { ...table, rules: [...rules, 'priority'], rows: rows.map(withLeavers) };
}

function summaryOf(task: Task, now: string, node: Node | undefined): string {
  const name = taskName(task);
  if (task.nodeId === '')
    return isActive(task) ? `${name} is pending: ${task.message || now}` : `${name} was stopped: ${task.why}`;
  if (isTerminal(task.state)) return `${name} was on ${task.nodeName} and is ${task.state}: ${task.error || task.why}`;
  if (isIsolated(task)) {
    const until = new Date(task.isolatedUntilMs).toISOString().slice(0, 19).replace('T', ' ');
    return `${name} (${task.id.slice(0, 5)}) is on ${task.nodeName}, isolated until ${until} UTC: ${task.why}`;
  }
  const waits = task.singleton && node?.state === 'down';
  const later = waits ? '; its node is down, and as a singleton it is replaced when the lease of that is over' : '';
  const state = `${task.state}${isAbsent(task) ? ' when last heard' : ''}`;
  return `${name} is on ${task.nodeName}, ${state}: ${task.why}${later}`;
}

function onlyNode(snapshot: Snapshot, task: Task): NodeId | undefined {
  if (task.nodeId !== '') return task.nodeId;
  for (const node of snapshot.all('node')) if (node.name === task.nodeName) return node.id;
  return undefined;
}

/** A copy of the cluster in which time passes as fast as it is looked at. */
export class Scratch {
  readonly snapshot = new LiveSnapshot();
  readonly #origin: Snapshot;
  readonly #books: Books;
  readonly #newId = countedIds();
  /** What tasks that have a node by now waited for before. */
  readonly #waited = new Map<string, string>();
  /** Why seats got their first tasks here: those of later ones speak of tasks that nobody will see. */
  readonly #begun = new Map<string, string>();
  #now: number;

  constructor(origin: Snapshot, now: number) {
    this.#origin = origin;
    this.#now = now;
    for (const table of tables) {
      for (const value of origin.all(table)) this.snapshot.apply(table, keyOf(table, value), value, 1);
    }
    this.#books = new Books(this.snapshot, now);
  }

  apply(changes: readonly Change[]): void {
    const applied: Applied[] = [];
    for (const { table, key, value } of changes) {
      const change = this.snapshot.apply(table, key, value, 1);
      if (change) applied.push(change);
    }
    this.#books.apply({ revision: 0, changes: applied }, this.#now);
  }

  /** Lets the services come to rest; returns what was started and stopped for each, in order, and for those whose tasks are preempted. */
  settle(asked: readonly ServiceId[]): Map<ServiceId, PlannedTask[]> {
    const planned = new Map<ServiceId, Map<string, PlannedTask>>();
    const ids = new Set<ServiceId>();
    let turns = 1;
    const join = (id: ServiceId) => {
      if (ids.has(id)) return;
      ids.add(id);
      planned.set(id, new Map());
      turns = Math.max(turns, this.#hurry(id));
    };
    for (const id of asked) join(id);
    // A service may wait for the one that the next look begins.
    for (let round = 0; round < turns * looksOfTurn + 4 * ids.size; round++) {
      let quiet = true;
      let wakeAtMs = Number.POSITIVE_INFINITY;
      for (const id of ids) {
        const context = { snapshot: this.snapshot, books: this.#books, now: this.#now, newId: this.#newId };
        const { changes, evicts, waits, ...decision } = decideService(context, id);
        wakeAtMs = Math.min(wakeAtMs, decision.wakeAtMs);
        for (const other of evicts) join(other);
        if (changes.length > 0) quiet = false;
        for (const change of changes) {
          if (change.table !== 'task') continue;
          if (waits && change.value?.message && !this.#waited.has(change.key))
            this.#waited.set(change.key, `; ${change.value.message}`);
          this.#note(planned.get(id)!, change);
        }
        this.apply(changes);
      }
      // As agents do: after all of a look was decided.
      for (const id of ids) this.#obey(id);
      if (quiet && wakeAtMs > this.#now + pauseMs) break;
      if (quiet) this.#now = Math.max(this.#now, wakeAtMs);
    }
    return new Map([...planned].map(([id, tasks]) => [id, [...tasks.values()]]));
  }

  /** Little waiting for what only time can tell; returns how many turns a rollout may take. */
  #hurry(id: ServiceId): number {
    const service = this.snapshot.service(id)!;
    const { update } = service.spec;
    const seats = Math.max([...this.snapshot.tasksOfService(id)].length, service.spec.replicas);
    const turns = update.parallelism === 0 ? 1 : Math.ceil(seats / update.parallelism);
    const parallelism = turns > mostTurns ? 0 : update.parallelism;
    const delayMs = update.delayMs + update.monitorMs > 0 ? pauseMs : 0;
    const hurried = { ...update, parallelism, delayMs, monitorMs: 0, gates: [] };
    const spec = { ...service.spec, update: hurried, rollback: hurried };
    this.apply([{ table: 'service', key: id, value: { ...service, spec }, expect: 0 }]);
    return parallelism === 0 ? 1 : Math.max(1, turns);
  }

  /** What becomes of the task, seen from the beginning: what came and went on the way is nothing to tell. */
  #note(planned: Map<string, PlannedTask>, { key, value: task }: Extract<Change, { table: 'task' }>): void {
    // Prepared, it may come to nothing; that it runs is told when it does.
    if (task && waitsForSeat(task) && task.nodeId !== '') return;
    const before = this.#origin.task(key as Task['id']);
    const had = before && isWanted(before) && !isAbsent(before) ? before : undefined;
    const has = task && isWanted(task) && !isAbsent(task) ? task : undefined;
    if (had && had.nodeId !== '' && !has) {
      const reason = task?.why ?? planned.get(key)?.reason ?? 'it is not needed any more';
      planned.set(key, { action: 'stop', slot: had.slot, node: had.nodeName, reason: withoutCounted(reason) });
    } else if (has && has.nodeId !== '' && had?.nodeId !== has.nodeId) {
      const reason = `${before ? has.why : this.#whyBegun(has)}${this.#waited.get(key) ?? ''}`;
      planned.set(key, { action: 'start', slot: has.slot, node: has.nodeName, reason: withoutCounted(reason) });
    } else if (has && has.nodeId === '' && had?.message !== has.message) {
      planned.set(key, { action: 'start', slot: has.slot, node: '', reason: has.message });
    } else if (had && has && had.revision !== has.revision) planned.set(key, adoption(has));
    else if (!has && task?.state !== 'complete') planned.delete(key);
  }

  #whyBegun({ serviceId, slot, nodeName, why }: Task): string {
    const seat = `${serviceId}/${slot > 0 ? slot : nodeName}`;
    const first = this.#begun.get(seat) ?? why;
    this.#begun.set(seat, first);
    return first;
  }

  /** Agents without delay: what is assigned runs, what is to stop has stopped. */
  #obey(id: ServiceId): void {
    const changes: Change[] = [];
    const ends = this.#isAwaitedToEnd(id);
    for (const task of this.snapshot.tasksOfService(id)) {
      if (!occupiesNode(task) || isAbsent(task) || (task.state === 'running' && isWanted(task))) continue;
      if (waitsForSeat(task)) {
        if (task.state !== 'ready')
          changes.push({ table: 'task', key: task.id, value: { ...task, state: 'ready' }, expect: 0 });
        continue;
      }
      const ended = { state: 'shutdown', finishedAtMs: this.#now, stateAtMs: this.#now } as const;
      const runs = { state: 'running', health: 'healthy', startedAtMs: this.#now, stateAtMs: this.#now } as const;
      const completes = { ...ended, state: 'complete', startedAtMs: this.#now } as const;
      const value: Task = { ...task, ...(isWanted(task) ? (ends ? completes : runs) : ended) };
      changes.push({ table: 'task', key: task.id, value, expect: 0 });
    }
    this.apply(changes);
  }

  #isAwaitedToEnd(id: ServiceId): boolean {
    const { project, name } = this.snapshot.service(id)?.spec ?? { project: '', name: '' };
    for (const { spec } of this.snapshot.dependentsOf(project, name))
      for (const { service, condition } of spec.dependsOn)
        if (service === name && condition === 'service_completed_successfully') return true;
    return false;
  }
}

function adoption({ slot, nodeName: node, revision }: Task): PlannedTask {
  return { action: 'change', slot, node, reason: `revision ${revision} has other limits: its process goes on` };
}

/** `moved to h2, where web.1 (plan0) is up`: the id is of no task that anybody could look for. */
function withoutCounted(reason: string): string {
  return reason.replace(/ \(plan0\)/g, '');
}

/** Ids of the right form for records that are never committed. */
function countedIds(): () => string {
  let count = 0;
  return () => `plan${(count++).toString(36).padStart(21, '0')}`;
}
