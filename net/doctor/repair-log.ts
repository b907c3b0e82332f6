/** What was put right within the last minute: the same thing again and again is somebody's doing, not chance. */
import type { NetStep } from '#net/plan/diff.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Repeated } from './view.ts';

const forMs = 60_000;
const mostKept = 2_000;

export class RepairLog {
  readonly #clock: Clock;
  #entries: { readonly at: number; readonly kind: NetStep['kind']; readonly message: string }[] = [];

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  note(kind: NetStep['kind'], message: string): void {
    this.#entries.push({ at: this.#clock.monotonic(), kind, message });
    if (this.#entries.length > mostKept) this.#forget();
  }

  /** Each thing once, with how often; those first that were put right first. */
  recent(): readonly Repeated[] {
    this.#forget();
    const found = new Map<string, Repeated>();
    for (const { kind, message } of this.#entries)
      found.set(message, { kind, message, count: (found.get(message)?.count ?? 0) + 1 });
    return [...found.values()];
  }

  #forget(): void {
    const since = this.#clock.monotonic() - forMs;
    this.#entries = this.#entries.filter(({ at }) => at >= since).slice(-mostKept / 2);
  }
}
