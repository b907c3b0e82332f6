/** Empties the trash as times come up: written down as due times, so that it goes on with the next leader. */
import { emptied } from '#control-plane/reconcilers/trash.ts';
import { deletedVolume, endOfVolume, goingVolume } from '#control-plane/reconcilers/volume-changes.ts';
import type { Change, Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { NodeId } from '#proto/model/ids.ts';
import { type Trashed, trashKey } from '#proto/model/trash.ts';

export interface TrashReaperParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly log: Log;
  /** Has a node delete a named volume with its data; also where it is gone already. Faults: `unavailable`, `conflict` (a task uses it). */
  readonly removeVolume: (node: NodeId, name: string) => Promise<void>;
}

/** Of one commit, with the histories of services among them; the rest follows. */
const mostItems = 200;
/** Volumes that nodes delete at once. */
const mostVolumes = 8;
/** More than this is not kept, however long its time: the oldest goes. */
const mostKept = 10_000;
/** A clock is never set for longer: what is due is looked at anew. */
const longestWaitMs = 3_600_000;
/** A volume that cannot be deleted now: its node is away, or its last task is still stopping. */
const volumeRetryMs = 10_000;

export class TrashReaper {
  readonly #parts: TrashReaperParts;
  readonly #epoch: number;
  /** Volumes by the key of their item, and when (wall clock) each is tried again; Infinity while it is being deleted. */
  readonly #volumes = new Map<string, number>();
  #timer: Timer | undefined;
  #busy = false;
  #stopped = false;

  constructor(parts: TrashReaperParts, epoch: number) {
    this.#parts = parts;
    this.#epoch = epoch;
    this.#lookLater();
  }

  onDelta({ changes }: Delta): void {
    for (const change of changes) if (change.table === 'trash' && !change.after) this.#volumes.delete(change.key);
    if (changes.some(({ table }) => table === 'trash')) this.#lookLater();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #dueAtMs(trashed: Trashed): number {
    return Math.max(trashed.dueAtMs, this.#volumes.get(trashKey(trashed)) ?? 0);
  }

  #lookLater(): void {
    if (this.#stopped || this.#busy) return;
    const { store, clock } = this.#parts;
    let dueAtMs = store.snapshot.count('trash') > mostKept ? 0 : Number.POSITIVE_INFINITY;
    for (const trashed of store.snapshot.all('trash')) dueAtMs = Math.min(dueAtMs, this.#dueAtMs(trashed));
    this.#timer?.cancel();
    if (dueAtMs === Number.POSITIVE_INFINITY) return;
    const waitMs = Math.min(longestWaitMs, Math.max(1, dueAtMs - clock.now()));
    this.#timer = clock.after(waitMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    const { store, clock } = this.#parts;
    const now = clock.now();
    const inOrder = [...store.snapshot.all('trash')].sort((a, b) => a.dueAtMs - b.dueAtMs);
    const surplus = Math.max(0, inOrder.length - mostKept);
    const due = inOrder.filter((trashed, index) => this.#dueAtMs(trashed) <= now || index < surplus);
    const changes: Change[] = [];
    for (const trashed of due.slice(0, mostItems)) {
      if (trashed.item.kind === 'volume') changes.push(...this.#endVolume(trashed, trashed.item.volume.name));
      else changes.push(...emptied(store.snapshot, trashed));
    }
    this.#busy = true;
    await this.#commit(changes);
    this.#busy = false;
    this.#lookLater();
  }

  /** What can be said of it at once; where its node is to delete it, that is begun. */
  #endVolume(trashed: Trashed, name: string): readonly Change[] {
    const { store, clock } = this.#parts;
    const end = endOfVolume(store.snapshot, name, trashed.going);
    switch (end.do) {
      case 'keep':
        return emptied(store.snapshot, trashed);
      case 'forget':
        return deletedVolume(store.snapshot, trashed, name);
      case 'wait':
        this.#volumes.set(trashKey(trashed), clock.now() + volumeRetryMs);
        return [];
      case 'delete': {
        // While its node is away it can still be taken back.
        if (!trashed.going && store.snapshot.node(end.volume.nodeId)?.state === 'ready')
          return [goingVolume(store.snapshot, trashed)];
        if (!trashed.going) {
          this.#volumes.set(trashKey(trashed), clock.now() + volumeRetryMs);
          return [];
        }
        const underWay = [...this.#volumes.values()].filter((atMs) => atMs === Number.POSITIVE_INFINITY).length;
        if (underWay < mostVolumes) void this.#delete(trashed, end.volume.nodeId, name);
        else this.#volumes.set(trashKey(trashed), clock.now() + 1_000);
        return [];
      }
    }
  }

  async #delete(trashed: Trashed, node: NodeId, name: string): Promise<void> {
    const { store, clock, log, removeVolume } = this.#parts;
    const key = trashKey(trashed);
    this.#volumes.set(key, Number.POSITIVE_INFINITY);
    try {
      await removeVolume(node, name);
      if (!this.#stopped) await this.#commit(deletedVolume(store.snapshot, trashed, name));
    } catch (error) {
      log.info('a volume cannot be deleted now, trying again', { node, why: name, error });
    }
    this.#volumes.set(key, clock.now() + volumeRetryMs);
    this.#lookLater();
  }

  async #commit(changes: readonly Change[]): Promise<void> {
    const { store, log } = this.#parts;
    if (changes.length === 0) return;
    try {
      await store.seen(await store.commit(changes, { epoch: this.#epoch }));
      log.info('trash emptied', {
        count: changes.length,
        why: changes
          .slice(0, 5)
          .map(({ key }) => key)
          .join(', '),
      });
    } catch (error) {
      if (isFault(error, 'precondition')) this.stop();
      else if (!isFault(error, 'conflict')) log.warn('the trash was not emptied, trying again', { error });
    }
  }
}
