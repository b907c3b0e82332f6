/** Until when singletons may run on this node, and what is due when that comes near. Pure; all instants in boot-time ms (`Clock.boottime`). */

/** A singleton is killed so long before the lease ends: what is left for the kill to be carried out, and for a machine that is busy. */
export const guardMs = 500;
/** So long before that it is asked to stop. */
export const askMs = 500;
/** Nothing begins that would be asked to stop at once. */
export const beginMs = 250;

export type Due = 'nothing' | 'stop' | 'kill';

/** What is to be done about singletons at `nowMs`; `untilMs`: the lease's end, 0 where there is none. */
export function dueAt(untilMs: number, nowMs: number): Due {
  const leftMs = untilMs - nowMs;
  if (leftMs <= guardMs) return 'kill';
  return leftMs <= guardMs + askMs ? 'stop' : 'nothing';
}

/** A singleton may be started now. */
export function mayBegin(untilMs: number, nowMs: number): boolean {
  return untilMs - nowMs > guardMs + askMs + beginMs;
}

const mostSent = 100;

/** Beats that were sent and not answered yet: an answer grants from when its beat was sent, not from when it is heard. */
export class SentBeats {
  /** The last hundred, each where its number says: answers come in order, to what is older there will be none. */
  readonly #sent: ({ readonly sequence: number; readonly atMs: number } | undefined)[] = [];

  sent(sequence: number, nowMs: number): void {
    this.#sent[sequence % mostSent] = { sequence, atMs: nowMs };
  }

  /** The end of the lease that the answer to this beat grants; 0: it grants none. */
  granted(sequence: number, leaseMs: number): number {
    const beat = this.#sent[sequence % mostSent];
    if (beat?.sequence !== sequence) return 0;
    this.#sent[sequence % mostSent] = undefined;
    return leaseMs <= 0 ? 0 : beat.atMs + leaseMs;
  }
}
