/** Removes contents of configs and secrets when nothing refers to them any more; a little later, for it is nothing that anybody waits for. */
import { reapDocument } from '#control-plane/reconcilers/document-changes.ts';
import { DocumentUse } from '#control-plane/reconcilers/document-usage.ts';
import type { Change, Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { documentKey } from '#proto/model/document.ts';

/** So many changes make one look. */
const lookAfterMs = 200;
/** Records that one commit removes; the rest follows in the next. */
const mostChanges = 500;

export class DocumentReaper {
  readonly #parts: { readonly store: Store; readonly clock: Clock; readonly log: Log };
  readonly #epoch: number;
  readonly #use: DocumentUse;
  /** Keys of documents of which something may be unused. */
  readonly #left: Set<string>;
  #timer: Timer | undefined;
  #busy = false;
  #stopped = false;

  constructor(parts: { readonly store: Store; readonly clock: Clock; readonly log: Log }, epoch: number) {
    this.#parts = parts;
    this.#epoch = epoch;
    const { snapshot } = parts.store;
    this.#use = DocumentUse.of(snapshot);
    this.#left = new Set([...snapshot.all('document'), ...snapshot.all('content')].map(documentKey));
    this.#lookSoon();
  }

  onDelta(delta: Delta): void {
    for (const key of this.#use.apply(delta)) this.#left.add(key);
    this.#lookSoon();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #lookSoon(): void {
    if (this.#stopped || this.#timer || this.#busy || this.#left.size === 0) return;
    this.#timer = this.#parts.clock.after(lookAfterMs, () => {
      this.#timer = undefined;
      void this.#look();
    });
  }

  async #look(): Promise<void> {
    const { store, log } = this.#parts;
    const changes: Change[] = [];
    const looked: string[] = [];
    for (const key of this.#left) {
      if (changes.length >= mostChanges) break;
      this.#left.delete(key);
      looked.push(key);
      changes.push(...reapDocument(store.snapshot, this.#use, key));
    }
    if (changes.length > 0) {
      this.#busy = true;
      try {
        await store.seen(await store.commit(changes, { epoch: this.#epoch }));
      } catch (error) {
        if (isFault(error, 'precondition')) this.stop();
        else if (!isFault(error, 'conflict'))
          log.warn('unused configs and secrets not removed, trying again', { error });
        for (const key of looked) this.#left.add(key);
      }
      this.#busy = false;
    }
    this.#lookSoon();
  }
}
