/** Whose wall clock is wrong, by what the leader hears of all of them. Nothing is decided by it: people and their logs are misled. Pure. */
import type { NodeId } from '#proto/model/ids.ts';
import { isOff, offWords } from '#proto/model/wall-clock.ts';

export interface ClocksAdvice {
  /** What is to be said of nodes whose clocks are off; of others nothing. */
  readonly words: ReadonlyMap<NodeId, string>;
  /** So far is the leader's own clock ahead of those of most, ms; 0: it is right, or nobody can tell. */
  readonly ownMs: number;
}

/** `offsets`: what each node's clock is ahead of the leader's, ms. Where more than half of all, the leader included, agree on another time, the leader is wrong. */
export function judgeClocks(offsets: ReadonlyMap<NodeId, number>, leader: string): ClocksAdvice {
  const words = new Map<NodeId, string>();
  if (![...offsets.values()].some(isOff)) return { words, ownMs: 0 };
  const all = [0, ...offsets.values()].sort((a, b) => a - b);
  const middle = all[Math.floor((all.length - 1) / 2)]!;
  const agreeing = all.filter((ms) => !isOff(ms - middle)).length;
  const isSure = agreeing * 2 > all.length;
  const right = isSure ? middle : 0;
  const than = isSure ? 'those of most hosts' : `that of ${leader}, which leads: one of them is wrong`;
  for (const [node, ms] of offsets)
    if (isOff(ms - right)) words.set(node, `its clock is ${offWords(ms - right)} ${than}`);
  return { words, ownMs: isOff(right) ? -right : 0 };
}
