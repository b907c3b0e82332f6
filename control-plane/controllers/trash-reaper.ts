/** Empties the trash as times come up: written down as due times, so that it goes on with the next leader. */
import { emptied } from '#control-plane/reconcilers/trash.ts';
import type { Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { type Trashed, trashKey } from '#proto/model/trash.ts';

/** Of one commit; the rest follows. */
const mostItems = 500;
/** More than this is not kept, however long its time: the oldest goes. */
const mostKept = 10_000;
/** A clock is never set for longer: what is due is looked at anew. */
const longestWaitMs = 3_600_000;

export class TrashReaper {
  readonly #parts: { readonly store: Store; readonly clock: Clock; readonly log: Log };
  readonly #epoch: number;
  #timer: Timer | undefined;
  #busy = false;
  #stopped = false;

  constructor(parts: { readonly store: Store; readonly clock: Clock; readonly log: Log }, epoch: number) {
    this.#parts = parts;
    this.#epoch = epoch;
    this.#lookLater();
  }

  onDelta({ changes }: Delta): void {
    if (changes.some(({ table }) => table === 'trash')) this.#lookLater();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #due(now: number): readonly Trashed[] {
    const inOrder = [...this.#parts.store.snapshot.all('trash')].sort((a, b) => a.dueAtMs - b.dueAtMs);
    const surplus = Math.max(0, inOrder.length - mostKept);
    return inOrder.filter(({ dueAtMs }, index) => dueAtMs <= now || index < surplus).slice(0, mostItems);
  }

  #lookLater(): void {
    if (this.#stopped || this.#busy) return;
    const { store, clock } = this.#parts;
    const count = store.snapshot.count('trash');
    let dueAtMs = count > mostKept ? 0 : Number.POSITIVE_INFINITY;
    for (const trashed of store.snapshot.all('trash')) dueAtMs = Math.min(dueAtMs, trashed.dueAtMs);
    this.#timer?.cancel();
    if (dueAtMs === Number.POSITIVE_INFINITY) return;
    const waitMs = Math.min(longestWaitMs, Math.max(1, dueAtMs - clock.now()));
    this.#timer = clock.after(waitMs, () => void this.#look());
  }

  async #look(): Promise<void> {
    const { store, clock, log } = this.#parts;
    const due = this.#due(clock.now());
    if (due.length > 0) {
      this.#busy = true;
      try {
        const changes = due.map((trashed) => emptied(store.snapshot, trashed));
        await store.seen(await store.commit(changes, { epoch: this.#epoch }));
        log.info('trash emptied', { count: due.length, why: due.slice(0, 5).map(trashKey).join(', ') });
      } catch (error) {
        if (isFault(error, 'precondition')) this.stop();
        else if (!isFault(error, 'conflict')) log.warn('the trash was not emptied, trying again', { error });
      }
      this.#busy = false;
    }
    this.#lookLater();
  }
}
