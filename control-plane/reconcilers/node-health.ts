/** Which nodes are down: judged by silence, with doubt about ourselves first. */
import type { Node } from '#proto/model/node.ts';

/** Silence after which a node is down. Beats come every 200 ms. */
export const silenceMs = 1_500;
/** Silence that is no longer chance: nodes fall silent together, but their deadlines do not come in the same instant. */
export const quietMs = 750;
/** Silence allowed to nodes that this leader has never heard: they have to find it first. */
export const graceMs = 5_000;
/** Silence before most nodes at once are believed to be down: more likely it is us. */
export const massSilenceMs = 6_000;

export interface Hearing {
  /** Monotonic clock, ms; as all instants here. */
  readonly now: number;
  /** This leader began to listen. */
  readonly leaderSinceMs: number;
  /** Our own event loop last came back from being late: what was sent before may still be unread. */
  readonly laggedUntilMs: number;
  lastBeatAt(node: Node): number | undefined;
}

export interface HealthAdvice {
  /** Nodes whose state is to change, as they should be, but for `stateAtMs`. */
  readonly verdicts: readonly { readonly node: Node; readonly state: 'ready' | 'down'; readonly message: string }[];
  /** When a node that is ready now could be down at the earliest; Infinity: never. */
  readonly wakeAtMs: number;
}

/** The verdict over all nodes. Those that stay as they are get none. */
export function judge(nodes: Iterable<Node>, hearing: Hearing): HealthAdvice {
  const verdicts: { node: Node; state: 'ready' | 'down'; message: string }[] = [];
  const silent: { node: Node; silentMs: number; heard: boolean }[] = [];
  let listening = 0;
  let quiet = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  for (const node of nodes) {
    const last = hearing.lastBeatAt(node);
    // What was heard before this leadership says nothing: the node may have been talking to another leader since.
    const beat = last !== undefined && last >= hearing.leaderSinceMs ? last : undefined;
    const heard = beat !== undefined;
    const sinceMs = Math.max(beat ?? hearing.leaderSinceMs, hearing.laggedUntilMs);
    const deadlineMs = sinceMs + (heard ? silenceMs : graceMs);
    if (node.state === 'ready') {
      listening++;
      if (hearing.now - (beat ?? hearing.leaderSinceMs) >= quietMs) quiet++;
    }
    if (hearing.now < deadlineMs) {
      if (heard && node.state !== 'ready' && hearing.now - beat < silenceMs)
        verdicts.push({ node, state: 'ready', message: '' });
      if (node.state === 'ready' || heard) wakeAtMs = Math.min(wakeAtMs, deadlineMs);
    } else if (node.state === 'ready') {
      silent.push({ node, silentMs: hearing.now - (beat ?? hearing.leaderSinceMs), heard });
    }
  }
  const mass = quiet >= 2 && quiet * 2 > listening;
  for (const { node, silentMs, heard } of silent) {
    if (mass && silentMs < massSilenceMs) {
      wakeAtMs = Math.min(wakeAtMs, hearing.now + massSilenceMs - silentMs);
      continue;
    }
    const message = heard ? `not heard for ${(silentMs / 1_000).toFixed(1)} s` : 'not heard since this leader began';
    verdicts.push({ node, state: 'down', message });
  }
  return { verdicts, wakeAtMs };
}
