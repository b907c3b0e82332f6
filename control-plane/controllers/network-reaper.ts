/** Removes networks of Compose projects when nobody is on them any more; a little later, for it is nothing that anybody waits for. */
import { reapUnused } from '#control-plane/reconcilers/network-changes.ts';
import { unusedNetworks } from '#control-plane/reconcilers/network-usage.ts';
import { same } from '#control-plane/reconcilers/same.ts';
import type { Applied, Delta } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Service } from '#proto/model/service.ts';
import { occupiesNode } from '#proto/model/task.ts';

/** So many changes make one look. */
const lookAfterMs = 200;

export class NetworkReaper {
  readonly #parts: { readonly store: Store; readonly clock: Clock; readonly log: Log };
  readonly #epoch: number;
  #timer: Timer | undefined;
  #busy = false;
  #stopped = false;
  /** Some network is nobody's but of tasks that are still there. */
  #held = false;

  constructor(parts: { readonly store: Store; readonly clock: Clock; readonly log: Log }, epoch: number) {
    this.#parts = parts;
    this.#epoch = epoch;
    this.#lookSoon();
  }

  onDelta({ changes }: Delta): void {
    if (changes.some((change) => this.#matters(change))) this.#lookSoon();
  }

  stop(): void {
    this.#stopped = true;
    this.#timer?.cancel();
  }

  #matters(change: Applied): boolean {
    if (change.table === 'service')
      return change.before !== undefined && !same(namesOf(change.before), namesOf(change.after));
    if (change.table !== 'task' || !this.#held) return false;
    const { before, after } = change;
    return before !== undefined && occupiesNode(before) && !(after && occupiesNode(after));
  }

  #lookSoon(): void {
    if (this.#stopped || this.#timer) return;
    this.#timer = this.#parts.clock.after(lookAfterMs, () => {
      this.#timer = undefined;
      void this.#look();
    });
  }

  async #look(): Promise<void> {
    const { store, clock, log } = this.#parts;
    if (this.#busy) {
      this.#lookSoon();
      return;
    }
    this.#held = unusedNetworks(store.snapshot).held > 0;
    const changes = reapUnused({ snapshot: store.snapshot, now: clock.now() });
    if (changes.length === 0) return;
    this.#busy = true;
    try {
      await store.seen(await store.commit(changes, { epoch: this.#epoch }));
    } catch (error) {
      if (isFault(error, 'precondition')) this.stop();
      else if (!isFault(error, 'conflict')) log.warn('unused networks not removed, trying again', { error });
      this.#lookSoon();
    }
    this.#busy = false;
  }
}

/** What a service keeps from being unused. */
function namesOf(service: Service | undefined): readonly (readonly string[])[] {
  return [service?.spec, service?.previous].map((spec) => spec?.template.networks.map(({ network }) => network) ?? []);
}
