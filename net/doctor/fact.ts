/** How probes say what they found. */
import type { ProbeFact } from '#proto/gen/gantry/v1/probe.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Hop, Verdict } from '#proto/model/net-finding.ts';

export interface Fact extends Omit<ProbeFact, 'probe' | 'hop' | 'verdict'> {
  /** `watch`: a watcher is ready. */
  readonly hop: Hop | 'watch';
  readonly verdict: Verdict;
}
export type Say = (fact: Fact) => void;
type More = Partial<Pick<Fact, 'subject' | 'wanted' | 'seen'>>;

const nothing = { subject: '', wanted: '', seen: '', remedy: '' };

export function good(hop: Fact['hop'], says: string, more: More = {}): Fact {
  return { ...nothing, hop, verdict: 'good', says, ...more };
}

export function broken(hop: Fact['hop'], says: string, remedy: string, more: More = {}): Fact {
  return { ...nothing, hop, verdict: 'broken', says, remedy, ...more };
}

export function unknown(hop: Fact['hop'], says: string, remedy: string, more: More = {}): Fact {
  return { ...nothing, hop, verdict: 'unknown', says, remedy, ...more };
}

/** How often each of several things was wrong, in some looks one after the other: what others break and we repair is so seen, too. */
export interface Looks<Key> {
  readonly looks: number;
  readonly wrong: ReadonlyMap<Key, number>;
}

/** Looks every `everyMs` for `forMs`, at least once; `look` gives what is wrong at that moment. */
export async function looked<Key>(
  clock: Clock,
  forMs: number,
  everyMs: number,
  look: () => Iterable<Key> | Promise<Iterable<Key>>,
): Promise<Looks<Key>> {
  const until = clock.monotonic() + forMs;
  const wrong = new Map<Key, number>();
  for (let looks = 1; ; looks++) {
    for (const key of new Set(await look())) wrong.set(key, (wrong.get(key) ?? 0) + 1);
    if (clock.monotonic() + everyMs > until) return { looks, wrong };
    await clock.sleep(everyMs);
  }
}

/** One wrong look may be a change on its way; that many are none. */
export function isWrong(count: number, looks: number): boolean {
  return count >= Math.max(Math.min(2, looks), looks / 5);
}

/** `in 3 of 10 looks`; nothing where it was wrong in all. */
export function inLooks(count: number, looks: number): string {
  return count === looks ? '' : ` in ${count} of ${looks} looks`;
}
