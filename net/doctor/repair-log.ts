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
    const now = this.#clock.monotonic();
    const found = new Map<string, Repeated>();
    for (const { at, kind, message } of this.#entries)
      found.set(message, { kind, message, count: (found.get(message)?.count ?? 0) + 1, agoMs: now - at });
    return [...found.values()];
  }

  #forget(): void {
    const since = this.#clock.monotonic() - forMs;
    this.#entries = this.#entries.filter(({ at }) => at >= since).slice(-mostKept / 2);
  }
}

/** Repairs of the same thing within a minute that cannot be chance, and how long after the last of them it is taken for over. */
const stubborn = 3;
const overAfterMs = 2_000;

/** Somebody is at it now. */
export function isStubborn({ count, agoMs }: Pick<Repeated, 'count' | 'agoMs'>): boolean {
  return count >= stubborn && agoMs < overAfterMs;
}

/** What the repairs of one thing tell of who breaks it; nothing where they may be chance. */
export function inHistory(repairs: readonly Repeated[]): string {
  const count = repairs.reduce((sum, one) => sum + one.count, 0);
  const agoMs = Math.min(...repairs.map((one) => one.agoMs));
  if (!isStubborn({ count, agoMs })) return '';
  return `; put right ${count} times in the last minute: it is being removed or changed again and again by somebody`;
}
