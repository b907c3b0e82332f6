/** The gates of a rollout: how many seats may go over before somebody, or time, lets it go on. */
import type { Gate, UpdatePolicy } from '#proto/model/service.ts';

export interface GateOnTheWay {
  /** In the order in which they are met. */
  readonly index: number;
  readonly gate: Gate;
  /** So many seats go over before it. */
  readonly seats: number;
  /** A pause that would come after the last seat, or no further than one before it, is none. */
  readonly isMet: boolean;
}

/** All gates on the way of so many seats: the canary first, then pauses, the nearest first. */
export function inOrder({ gates }: UpdatePolicy, seats: number): readonly GateOnTheWay[] {
  const sorted = gates
    .map((gate) => ({ gate, seats: seatsBefore(gate, seats) }))
    .sort((a, b) => rank(a.gate) - rank(b.gate) || a.seats - b.seats);
  let before = 0;
  return sorted.map((one, index) => {
    const isMet = one.gate.kind === 'canary' || (one.seats > before && one.seats < seats);
    before = Math.max(before, one.seats);
    return { ...one, index, isMet };
  });
}

/** The first that is not passed yet. */
export function nextGate(policy: UpdatePolicy, passed: number, seats: number): GateOnTheWay | undefined {
  return policy.gates.length === 0
    ? undefined
    : inOrder(policy, seats).find(({ index, isMet }) => isMet && index >= passed);
}

/** At least one, and no more than there are. */
function seatsBefore({ count, percent }: Gate, seats: number): number {
  return Math.min(seats, Math.max(1, count, Math.ceil((seats * percent) / 100)));
}

function rank({ kind }: Gate): number {
  return kind === 'canary' ? 0 : 1;
}
