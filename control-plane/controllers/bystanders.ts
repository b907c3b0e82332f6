/**
 * Services that a change concerns although nothing of theirs has changed: those that wait for a place, when one may be free, and those that run on
 * every node, when a node is otherwise. Each of a thousand nodes that come back is the same work over all of them, so it is done for many nodes
 * together, and takes but a part of the time.
 */
import type { Clock } from '#proto/kernel/clock.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import { Paced } from './paced.ts';

export class Bystanders {
  /** Tasks of theirs fit nowhere. */
  readonly unplaced = new Set<ServiceId>();
  /** They run on every node. */
  readonly everywhere = new Set<ServiceId>();
  /** To be looked at for no other reason. */
  readonly #marked = new Set<ServiceId>();
  readonly #pace: Paced;
  #freed = false;
  #nodesChanged = false;

  /** `again`: it was too soon to mark them, and may be done now. */
  constructor(clock: Clock, again: () => void) {
    this.#pace = new Paced(clock, again);
  }

  /** A place may have become free. */
  freed(): void {
    this.#freed = true;
  }

  /** A node has come, gone, or is otherwise. */
  nodeChanged(): void {
    this.#freed = true;
    this.#nodesChanged = true;
  }

  /** Adds those that are to be looked at when it is time to, the highest priority first: whoever is looked at first has the first choice. */
  mark(dirty: Set<ServiceId>, priorityOf: (id: ServiceId) => number): Set<ServiceId> {
    let all = dirty;
    if (this.#freed) this.#pace.run(() => (all = this.#markNow(dirty, priorityOf)));
    return all;
  }

  #markNow(dirty: Set<ServiceId>, priorityOf: (id: ServiceId) => number): Set<ServiceId> {
    for (const id of [...(this.#nodesChanged ? this.everywhere : []), ...this.unplaced]) {
      if (!dirty.has(id)) this.#marked.add(id);
      dirty.add(id);
    }
    this.#freed = false;
    this.#nodesChanged = false;
    const first = [...this.unplaced].filter((id) => priorityOf(id) > 0);
    return first.length === 0 ? dirty : new Set([...first.sort((a, b) => priorityOf(b) - priorityOf(a)), ...dirty]);
  }

  /** Does what is to be done about a service; where that is for others' sake, it counts. */
  look<Result>(id: ServiceId, work: () => Result): Result {
    return this.#marked.delete(id) ? this.#pace.also(work) : work();
  }

  /** It is gone. */
  remove(id: ServiceId): void {
    for (const ids of [this.unplaced, this.everywhere, this.#marked]) ids.delete(id);
  }

  stop(): void {
    this.#pace.stop();
  }
}
