/** Takes what agents report into the store: all nodes' words of one tick in one guarded commit. */
import type { Clock } from '#proto/kernel/clock.ts';
import { describe, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { isTerminal, type Task, type TaskStatus, withStatus } from '#proto/model/task.ts';
import type { Change } from '../store/records.ts';
import type { Snapshot } from '../store/snapshot.ts';
import { revisionKey } from '../store/snapshot.ts';
import type { Store } from '../store/store.ts';
import type { NodeDescription } from './description.ts';

/** Most changes of one transaction; the rest goes with the next. */
const commitLimit = 1_000;
const retryMs = 20;

export class StatusWriter {
  readonly #parts: { store: Store; clock: Clock; log: Log; epoch: () => number | undefined };
  /** The newest word of each task that is not written, by the node that said it. */
  readonly #statuses = new Map<NodeId, Map<TaskId, TaskStatus>>();
  readonly #nodes = new Map<NodeId, Said>();
  #scheduled = false;
  #writing = false;
  #failures = 0;
  #closed = false;

  /** `epoch`: of this replica's leadership; undefined while it does not lead, and nothing is written. */
  constructor(parts: { store: Store; clock: Clock; log: Log; epoch: () => number | undefined }) {
    this.#parts = parts;
  }

  /** Words about other nodes' tasks are dropped. The newest word of a task wins, but one that ends it is never replaced by one that does not. */
  report(node: NodeId, statuses: readonly TaskStatus[]): void {
    const { snapshot } = this.#parts.store;
    for (const status of statuses.map(bounded)) {
      if (snapshot.task(status.taskId)?.nodeId !== node) continue;
      this.#hold(node, status, (waiting) => !isTerminal(waiting.state));
    }
    if (this.#statuses.size > 0) this.#schedule(0);
  }

  /** Where a word of that task waits already, this one takes its place only if that one `yields`. */
  #hold(node: NodeId, status: TaskStatus, yields: (waiting: TaskStatus) => boolean): void {
    const words = this.#statuses.get(node) ?? new Map<TaskId, TaskStatus>();
    this.#statuses.set(node, words);
    const waiting = words.get(status.taskId);
    if (!waiting || yields(waiting)) words.set(status.taskId, status);
  }

  /** `accounts`: with its reports that are written with it, the node has said what runs on it. */
  describe(node: NodeId, description: NodeDescription, accounts = false): void {
    this.#nodes.set(node, { description, accounts: accounts || (this.#nodes.get(node)?.accounts ?? false) });
    this.#schedule(0);
  }

  /** Forgets what is not written yet: another replica leads, and the agents will tell it everything again. */
  clear(): void {
    this.#statuses.clear();
    this.#nodes.clear();
  }

  close(): void {
    this.#closed = true;
    this.clear();
  }

  #schedule(ms: number): void {
    if (this.#scheduled || this.#writing || this.#closed) return;
    this.#scheduled = true;
    this.#parts.clock.after(ms, () => {
      this.#scheduled = false;
      void this.#write();
    });
  }

  async #write(): Promise<void> {
    if (this.#writing || this.#closed) return;
    const epoch = this.#parts.epoch();
    if (epoch === undefined) {
      this.clear();
      return;
    }
    this.#writing = true;
    const { store, clock, log } = this.#parts;
    // One after the other once commits keep failing, so that one contested record does not hold up the others.
    const limit = this.#failures > 2 ? 1 : commitLimit;
    const statuses = this.#takeStatuses(limit);
    // That a node has said what runs on it is not written before what it said.
    const nodes = take(this.#nodes, limit, (id) => !this.#statuses.has(id));
    let again = 0;
    try {
      const changes = changesOf(store.snapshot, nodes, statuses, clock.now());
      if (changes.length > 0) await store.seen(await store.commit(changes, { epoch }));
      this.#failures = 0;
    } catch (error) {
      this.#failures++;
      if (isFault(error, 'precondition')) log.info('no longer leading, reports are left to the next leader', { epoch });
      else {
        if (!isFault(error, 'conflict')) log.warn('reports of agents not committed, trying again', { error });
        else log.debug('reports met a newer record, reading again', { why: describe(error) });
        for (const [id, said] of nodes) {
          const { description, accounts = false } = this.#nodes.get(id) ?? said;
          this.#nodes.set(id, { description, accounts: accounts || said.accounts });
        }
        for (const { node, status } of statuses.values()) this.#hold(node, status, () => isTerminal(status.state));
        again = isFault(error, 'conflict') ? retryMs : retryMs * 10;
      }
    }
    this.#writing = false;
    if (this.#statuses.size + this.#nodes.size > 0) this.#schedule(again);
  }

  /** Removes up to `limit` words, those of the node that has waited longest first. */
  #takeStatuses(limit: number): Map<TaskId, { node: NodeId; status: TaskStatus }> {
    const taken = new Map<TaskId, { node: NodeId; status: TaskStatus }>();
    for (const [node, words] of this.#statuses) {
      for (const [id, status] of words) {
        if (taken.size >= limit) return taken;
        taken.set(id, { node, status });
        words.delete(id);
      }
      this.#statuses.delete(node);
    }
    return taken;
  }
}

/** What a node says of itself. */
interface Said {
  readonly description: NodeDescription;
  /** It has said what runs on it, too. */
  readonly accounts: boolean;
}

/** Longest text of a report that is kept, in characters. */
const textChars = 4_000;

/** A report as the store takes it, whatever an agent puts into it: every record goes to memory and disk of every replica. */
function bounded(status: TaskStatus): TaskStatus {
  const { message, error, imageDigest } = status;
  const isDigest = /^sha\d+:[0-9a-f]{32,128}$/.test(imageDigest);
  if (message.length <= textChars && error.length <= textChars && (isDigest || imageDigest === '')) return status;
  return {
    ...status,
    message: message.slice(0, textChars),
    error: error.slice(0, textChars),
    imageDigest: isDigest ? imageDigest : '',
  };
}

/** Removes up to `limit` entries that may go, oldest first, and returns them. */
function take<K, V>(map: Map<K, V>, limit: number, mayGo: (key: K) => boolean): Map<K, V> {
  const taken = new Map<K, V>();
  for (const [key, value] of map) {
    if (taken.size >= limit) break;
    if (!mayGo(key)) continue;
    taken.set(key, value);
    map.delete(key);
  }
  return taken;
}

/** The edits that reports make to the records of this snapshot at `now` (wall clock ms); reports about other nodes' tasks make none. Pure. */
export function changesOf(
  snapshot: Snapshot,
  nodes: ReadonlyMap<NodeId, Said>,
  statuses: ReadonlyMap<TaskId, { readonly node: NodeId; readonly status: TaskStatus }>,
  now: number,
): Change[] {
  const changes: Change[] = [];
  for (const [id, { description, accounts }] of nodes) {
    const held = snapshot.get('node', id);
    if (!held) continue;
    const value: Node = { ...held.value, ...description, unaccounted: held.value.unaccounted && !accounts };
    if (JSON.stringify(value) === JSON.stringify(held.value)) continue;
    changes.push({ table: 'node', key: id, value, expect: held.modRevision });
  }
  const bootOf = (id: NodeId) => nodes.get(id)?.description.bootId ?? snapshot.node(id)?.bootId;
  const pinned = new Set<string>();
  for (const [id, { node, status }] of statuses) {
    const held = snapshot.get('task', id);
    if (!held || held.value.nodeId !== node) continue;
    const isLost = isOfOtherBoot(held.value, bootOf(node));
    const value = withStatus(held.value, isLost ? lost(status, now) : status, now);
    if (value === held.value) continue;
    changes.push({ table: 'task', key: id, value, expect: held.modRevision });
    const key = revisionKey(value.serviceId, value.revision);
    const revision = snapshot.get('revision', key);
    if (value.imageDigest === '' || !revision || revision.value.imageDigest !== '' || pinned.has(key)) continue;
    pinned.add(key);
    const digested = { ...revision.value, imageDigest: value.imageDigest };
    changes.push({ table: 'revision', key, value: digested, expect: revision.modRevision });
  }
  return changes;
}

/** It was absent, and its node is back with another boot. */
function isOfOtherBoot({ absence }: Task, bootId: string | undefined): boolean {
  return absence !== undefined && absence.bootId !== bootId;
}

/**
 * Whatever its node says of it now, it was lost with the boot before, and counts as lost, not as failed. That is written here, and not
 * left to the reconciler: a leader that does not know of the new boot yet may be about to count on the task again.
 */
function lost(status: TaskStatus, now: number): TaskStatus {
  const message = 'its node was started anew';
  return { ...status, state: 'orphaned', message, error: '', health: '', pid: 0, finishedAtMs: now };
}
