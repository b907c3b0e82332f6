/** Which slots a replicated service has: surplus ones are given up, missing ones are taken, lowest first, after those that somebody left only for a while. */
import { isWhyReplicas, replicasOf, whyReplicas } from '#proto/model/autoscale.ts';
import type { Service } from '#proto/model/service.ts';
import { isTerminal, isWanted } from '#proto/model/task.ts';
import { activeOf, isSeated, isUp, latestOf, type Opinion, type Seat } from './seats.ts';

export interface Seating {
  /** Seats that should be filled; those without a task yet among them. */
  readonly wanted: readonly Seat[];
  /** Seats on nodes that are not heard at the moment: they keep what they have. */
  readonly away: readonly Seat[];
  readonly opinions: readonly Opinion[];
}

/** `tasksOn`: how loaded a node is, for the choice of what to give up. */
export function replicated(
  service: Service,
  seats: ReadonlyMap<string, Seat>,
  tasksOn: (nodeId: string) => number,
): Seating {
  const replicas = replicasOf(service);
  const seated = [...seats.values()].filter(isSeated).sort((a, b) => a.slot - b.slot);
  const surplus = seated.length > replicas ? givenUp(seated, seated.length - replicas, tasksOn) : new Set<Seat>();
  const wanted = seated.filter((seat) => !surplus.has(seat));
  const taken = new Set(wanted.map((seat) => seat.slot));
  const kept = [...seats.values()].filter((seat) => !isSeated(seat) && isKept(seat)).sort(lastLeftFirst);
  for (const seat of kept.slice(0, Math.max(0, replicas - wanted.length))) {
    wanted.push(seat);
    taken.add(seat.slot);
  }
  for (let slot = 1; wanted.length < replicas; slot++) {
    if (taken.has(slot)) continue;
    wanted.push(seats.get(String(slot)) ?? { slot, nodeId: '', nodeName: '', tasks: [] });
  }
  const why = whyReplicas(service);
  // Who is absent has no seat to come back to where nobody is to sit.
  const sat = new Set(wanted);
  const unwanted = [...seats.values()].filter((seat) => !sat.has(seat));
  const opinions = unwanted.flatMap((seat) => leave(seat, why));
  return { wanted: wanted.sort((a, b) => a.slot - b.slot), away: [], opinions };
}

/**
 * Nobody holds it now, but it is the service's: who is absent finds its own seat when it comes back, and who stopped for its turn,
 * or was drained, is followed there. Otherwise a lower seat that was given up would be filled beside the one that is being left.
 */
function isKept(seat: Seat): boolean {
  const latest = latestOf(seat);
  const isGivenUp = latest?.wanted === 'shutdown' && isWhyReplicas(latest.why);
  return latest !== undefined && !isGivenUp;
}

/** Where there were to be fewer meanwhile, who is leaving now, or left last, is the one to be followed. */
function lastLeftFirst(a: Seat, b: Seat): number {
  const leftAtMs = ({ tasks }: Seat) =>
    tasks.some(({ state }) => !isTerminal(state))
      ? Number.MAX_VALUE
      : Math.max(...tasks.map(({ stateAtMs }) => stateAtMs));
  return leftAtMs(b) - leftAtMs(a) || a.slot - b.slot;
}

/** What empties a seat for good: its tasks stop, and its last end is not the restart policy's affair any more. */
export function leave(seat: Seat, why: string): Opinion[] {
  const leaving = seat.tasks.filter(isWanted);
  const latest = latestOf(seat);
  if (latest && !leaving.includes(latest) && (latest.wanted === 'running' || latest.wanted === 'ready')) {
    leaving.push(latest);
  }
  return leaving.map((task) => ({ kind: 'stop', task, why }));
}

/** First what does not run or is not healthy, then what evens out the nodes, the fullest first, then the highest slot. */
function givenUp(seated: readonly Seat[], count: number, tasksOn: (nodeId: string) => number): Set<Seat> {
  const perNode = new Map<string, number>();
  const ranked = seated.map((seat) => {
    const up = activeOf(seat).find(isUp);
    const node = up?.nodeId ?? '';
    // The how-manieth of this service on its node: giving up the highest ones first leaves an even spread.
    const nth = up ? (perNode.get(node) ?? 0) + 1 : 0;
    if (up) perNode.set(node, nth);
    return { seat, up: up !== undefined, nth, load: up ? tasksOn(node) : 0 };
  });
  ranked.sort((a, b) => Number(a.up) - Number(b.up) || b.nth - a.nth || b.load - a.load || b.seat.slot - a.seat.slot);
  return new Set(ranked.slice(0, count).map(({ seat }) => seat));
}
