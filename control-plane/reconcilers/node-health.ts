/** Which nodes are down: judged by silence, with doubt about ourselves first. */
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { answersProbes, type KernelSeen, type KernelVerdict, kernelVerdict, probeWords } from './kernel-verdict.ts';

/** Silence after which a node is down. Beats come every 200 ms. */
export const silenceMs = 1_500;
/**
 * Silence allowed to a node whose agent hung up: its machine lives, or nobody had closed the connection, and so do its
 * tasks. A new agent needs a second, on a machine with much to do two.
 */
export const restartMs = 3_000;
/** Silence that is no longer chance: nodes fall silent together, but their deadlines do not come in the same instant. */
export const quietMs = 750;
/** Silence after which a node's kernel is asked; where it hung up, at once. */
export const suspectMs = 600;
/** Silence allowed to nodes that this leader has never heard: they have to find it first. */
export const graceMs = 5_000;
/** While nodes go on arriving at a new leader, those that have not yet are waited for: of thousands the last are heard long after the first. */
export const arrivingMs = 3_000;
/** But not for longer than this from its beginning. */
export const mostArrivingMs = 300_000;
/** So long before the end of that grace their kernels are asked: they may live where nothing of ours is heard. */
export const askMs = 1_500;
/** When they are asked where most nodes are heard by then: the machine of the leader before this one was a node, too, perhaps. */
export const unheardMs = 300;
/** Silence before most nodes at once are believed to be down: more likely it is us. */
export const massSilenceMs = 6_000;

/** An agent that answers nobody for so long, while its host lives, is said to be away: a restart takes less. */
export const awayMs = 3_000;

/** How the agent of a node is, as the watchdog of its host says; `unconnected`: it runs, and has no session. */
export interface AgentSeen {
  readonly condition: 'running' | 'stalled' | 'stopped' | 'gone' | 'unconnected';
  /** Monotonic ms since which it is not `running`; where it is, since which it is. */
  readonly sinceMs: number;
}

/** For people: what each condition comes to. */
const ailments: Record<AgentSeen['condition'], string> = {
  running: '',
  stalled: 'its agent hangs',
  stopped: 'its agent is stopped (SIGSTOP)',
  gone: 'its agent does not run',
  unconnected: 'its agent has no session',
};

const deafAlone = 'no node is heard: the control plane may be cut off';
const deafBeside = 'no node of another machine is heard: the control plane may be cut off';
const deafWatchdog = 'nothing of ours is heard from it, but its kernel answers';

export interface Hearing {
  /** Monotonic clock, ms; as all instants here. */
  readonly now: number;
  /** This leader began to listen. */
  readonly leaderSinceMs: number;
  /** Our own event loop last came back from being late: what was sent before may still be unread. */
  readonly laggedUntilMs: number;
  /** The boot of the machine that this leader runs on: a node on it is heard however cut off both are. undefined: none of the nodes is. */
  readonly ownBootId?: string | undefined;
  /** We last heard nobody at all: who is heard again then is given the time of a new leader. 0: never. */
  readonly deafUntilMs: number;
  /** A node was last heard for the first time since then; -Infinity: none was. */
  readonly lastArrivalMs: number;
  lastBeatAt(node: Node): number | undefined;
  /** Its beats were hung up after the last; undefined: they were not. */
  hungUpAt(node: Node): number | undefined;
  /** What probes of its kernel have shown. */
  kernelOf(node: Node): KernelSeen;
  /** What is wrong with its clock; '': nothing; undefined: it has not told its time since this leader began. */
  clockOf(node: Node): string | undefined;
  /** Of whom that is not ''. */
  readonly wrongClocks: Iterable<NodeId>;
  /** undefined: its beats say nothing of its agent. */
  agentOf(node: Node): AgentSeen | undefined;
}

export interface Verdict extends Pick<Node, 'state' | 'message' | 'away'> {
  readonly node: Node;
}

export interface HealthAdvice {
  /** Nodes whose state is to change, as they should be, but for `stateAtMs`. */
  readonly verdicts: readonly Verdict[];
  /** Silent nodes whose kernels are to be asked. */
  readonly suspects: readonly Node[];
  /** Nodes whose lease may be over, or will be before `wakeAtMs`: silent ones, and those that are not ready. */
  readonly lapsing: readonly Node[];
  /** Nodes whose record says otherwise than was seen whether their kernels answer probes. */
  readonly probed: readonly { readonly node: Node; readonly answersProbes: boolean }[];
  /** No member of another machine is heard: it is we who are cut off, and nothing is known of any of them. */
  readonly deaf: boolean;
  /** When a node that is ready now could be down at the earliest; Infinity: never. */
  readonly wakeAtMs: number;
}

/** What is heard of a node, and when that is too little. */
interface Heard {
  readonly node: Node;
  readonly judged: boolean;
  /** It is on the machine of this leader. */
  readonly own: boolean;
  /** Since this leader began. */
  readonly heard: boolean;
  readonly hungUp: boolean;
  /** Its last beat, or when this leader began. */
  readonly lastMs: number;
  readonly kernel: KernelVerdict;
  /** As in KernelSeen. */
  readonly answers: boolean | undefined;
  /** From when on its kernel is asked. */
  readonly suspectAtMs: number;
  /** From when on it is down. */
  readonly deadlineMs: number;
  /** From when on it is unknown, where nobody is heard. */
  readonly unknownAtMs: number;
  /** From when on it is no sign that we hear anybody: by its own patience, without what it is owed because we were late ourselves. */
  readonly unheardAtMs: number;
}

/** What comes of one node; no verdict: it stays as it is. */
interface Judgement {
  readonly verdict?: Verdict | undefined;
  readonly wakeAtMs: number;
}

const never = Number.POSITIVE_INFINITY;

/**
 * The verdict over all nodes. Those that stay as they are get none. `agentAwayLimitMs`: a host that lives without its agent is left alone for
 * so long; then nobody can tell what becomes of its tasks, and they are replaced. Infinity: as long as it lives.
 */
export function judge(nodes: Iterable<Node>, hearing: Hearing, agentAwayLimitMs: number): HealthAdvice {
  const { now } = hearing;
  const beats = [...nodes].map((node) => ({ node, beatMs: beatOf(node, hearing) }));
  const asked = beats.filter(({ node }) => isJudged(node));
  const mostAreHeard = asked.filter(({ beatMs }) => beatMs !== undefined).length * 2 >= asked.length;
  const unheardAfterMs = mostAreHeard ? unheardMs : graceMs - askMs;
  const own = beats.find(({ node }) => isOwn(node, hearing))?.node;
  // Of two machines it is the only other one that can be asked.
  const noEar = asked.filter(({ node }) => node !== own).length > 1 ? own?.id : undefined;
  const terms = { agentAwayLimitMs, unheardAfterMs, arrivedMs: stillArriving(hearing), noEar };
  const all = beats.map(({ node, beatMs }) => hear(node, beatMs, hearing, terms));
  const judged = all.filter((one) => one.judged);
  const others = judged.filter(({ own }) => !own);
  const isBeside = others.length < judged.length;
  const isQuiet = ({ lastMs }: Heard) => now - lastMs >= quietMs;
  // Nobody is left to take over, so that a verdict would only cost the tasks of living nodes their place. Of two machines the one that
  // leads takes over from the other; of more it does not take over from all of them at once.
  const isAnyOver = others.length > (isBeside ? 1 : 0) && others.some(({ unknownAtMs }) => now >= unknownAtMs);
  const deaf = isAnyOver && others.every((one) => isQuiet(one) && now >= one.unheardAtMs);
  const quiet = judged.filter(isQuiet).length;
  const patient = deaf || (quiet >= 2 && quiet * 2 > judged.length);
  let names: ReadonlyMap<NodeId, string> | undefined;
  const nameOf = (id: NodeId) => {
    names ??= new Map(all.map(({ node }) => [node.id, node.name]));
    return names.get(id) ?? id;
  };
  const verdicts: Verdict[] = [];
  let wakeAtMs = never;
  for (const one of all) {
    const unknown = deaf && !one.own;
    const isOver = one.judged && now >= (unknown ? one.unknownAtMs : one.deadlineMs);
    const wait = isOver && patient && now - one.lastMs < massSilenceMs;
    const told = wait
      ? { wakeAtMs: one.lastMs + massSilenceMs }
      : isOver
        ? { verdict: unknown ? unknownOf(one, isBeside) : downOf(one, hearing, nameOf), wakeAtMs: never }
        : judgeLiving(one, hearing, agentAwayLimitMs);
    if (told.verdict) verdicts.push(told.verdict);
    wakeAtMs = Math.min(wakeAtMs, told.wakeAtMs, one.judged && now < one.suspectAtMs ? one.suspectAtMs : never);
  }
  return {
    verdicts,
    suspects: judged.filter(({ suspectAtMs }) => now >= suspectAtMs).map(({ node }) => node),
    probed: all.flatMap(({ node, heard, answers }) =>
      heard && answers !== undefined && answers !== (node.answersProbes ?? false)
        ? { node, answersProbes: answers }
        : [],
    ),
    lapsing: all.filter((one) => !one.judged || now >= one.suspectAtMs).map(({ node }) => node),
    deaf,
    wakeAtMs,
  };
}

/** Whether it may be given up: one that is down already, or has never described itself, may not. */
function isJudged({ state, bootId }: Node): boolean {
  return state === 'ready' || (state === 'unknown' && bootId !== '');
}

/** Its last beat since this leader began: what came before says nothing, for it may have been talking to another one since. */
function beatOf(node: Node, { lastBeatAt, leaderSinceMs }: Hearing): number | undefined {
  const last = lastBeatAt(node);
  return last !== undefined && last >= leaderSinceMs ? last : undefined;
}

/** What is the same for all nodes of one look. */
interface Terms {
  readonly agentAwayLimitMs: number;
  /** When the kernels of those are asked that this leader has not heard, after it began. */
  readonly unheardAfterMs: number;
  /** As `stillArriving` says. */
  readonly arrivedMs: number;
  /** As in `kernelVerdict`. */
  readonly noEar: NodeId | undefined;
}

/** It is on the machine of this leader. */
function isOwn({ bootId }: Node, { ownBootId }: Hearing): boolean {
  return ownBootId !== undefined && bootId === ownBootId;
}

function hear(
  node: Node,
  beat: number | undefined,
  hearing: Hearing,
  { agentAwayLimitMs, unheardAfterMs, arrivedMs, noEar }: Terms,
): Heard {
  const { leaderSinceMs, laggedUntilMs, deafUntilMs } = hearing;
  const heard = beat !== undefined;
  const lastMs = beat ?? leaderSinceMs;
  const hungUp = heard && (hearing.hungUpAt(node) ?? Number.NEGATIVE_INFINITY) >= beat;
  const patienceMs = heard ? (hungUp ? restartMs : silenceMs) : graceMs;
  const suspectAtMs = lastMs + (heard ? (hungUp ? 0 : suspectMs) : unheardAfterMs);
  const seen = hearing.kernelOf(node);
  const kernel = kernelVerdict(seen, lastMs, node.answersProbes ?? false, noEar);
  const waitedForMs = heard ? 0 : arrivedMs;
  // While others arrive, who was heard once waits for its turn, too.
  const livesMs = Math.max(lastMs, arrivedMs - arrivingMs) + agentAwayLimitMs;
  const soonestMs = {
    untold: Math.max(Math.max(lastMs, laggedUntilMs) + patienceMs, waitedForMs),
    // The answers wake us.
    asking: never,
    lives: livesMs,
    lived: livesMs,
    dead: Math.max(suspectAtMs, laggedUntilMs + suspectMs),
  };
  const deafMs = lastMs < deafUntilMs ? deafUntilMs + graceMs : 0;
  const deadlineMs = Math.max(soonestMs[kernel], deafMs);
  // Answers that are awaited, or came before we were cut off, do not count.
  const isDoubtful = kernel === 'asking' || kernel === 'lived';
  const unknownAtMs = isDoubtful ? Math.max(soonestMs.untold, deafMs) : deadlineMs;
  return {
    node,
    judged: isJudged(node),
    own: isOwn(node, hearing),
    answers: seen.answers,
    heard,
    hungUp,
    lastMs,
    kernel,
    suspectAtMs,
    deadlineMs,
    unknownAtMs,
    unheardAtMs: kernel === 'lives' ? unknownAtMs : Math.min(lastMs + patienceMs, unknownAtMs),
  };
}

/** Until when who has not arrived is waited for. */
function stillArriving({ lastArrivalMs, laggedUntilMs, leaderSinceMs }: Hearing): number {
  return Math.min(Math.max(lastArrivalMs, laggedUntilMs) + arrivingMs, leaderSinceMs + mostArrivingMs);
}

function unknownOf({ node }: Heard, isBeside: boolean): Verdict | undefined {
  if (node.state === 'unknown') return undefined;
  return { node, state: 'unknown', message: isBeside ? deafBeside : deafAlone, away: node.away };
}

function downOf({ node, heard, lastMs }: Heard, hearing: Hearing, nameOf: (id: NodeId) => string): Verdict {
  const kernel = hearing.kernelOf(node);
  const before = node.answersProbes ?? false;
  const told = answersProbes(kernel, before) && kernel.round ? `; ${probeWords(kernel, before, nameOf)}` : '';
  const silence = heard
    ? `not heard for ${((hearing.now - lastMs) / 1_000).toFixed(1)} s`
    : 'not heard since this leader began';
  return { node, state: 'down', message: `${silence}${told}`, away: '' };
}

/** Of a node that is not silent for too long, or was given up before. */
function judgeLiving(one: Heard, hearing: Hearing, agentAwayLimitMs: number): Judgement {
  const { node, judged, heard, hungUp, lastMs, kernel, deadlineMs } = one;
  const { now, laggedUntilMs } = hearing;
  if (now >= deadlineMs) return { wakeAtMs: never };
  const wakeAtMs = judged || heard ? deadlineMs : never;
  // Who was given up comes back with a beat, not because its kernel is asked once more.
  if (node.state === 'down' && (!heard || hungUp || now - lastMs >= suspectMs)) return { wakeAtMs };
  if (heard && now - lastMs < silenceMs) {
    const living = judgeAgent(node, hearing.agentOf(node), now, agentAwayLimitMs);
    return { ...living, wakeAtMs: Math.min(wakeAtMs, living.wakeAtMs) };
  }
  // Left alone: what runs there goes on.
  if (kernel !== 'lives' || !judged) return { wakeAtMs };
  // Of a thousand that dial a new leader at once the last are heard when it has had time for them.
  const awayAtMs = Math.max(lastMs, laggedUntilMs) + (heard ? awayMs : graceMs);
  if (now < awayAtMs) return { wakeAtMs: Math.min(wakeAtMs, awayAtMs) };
  const isNews = node.state !== 'ready' || node.away !== deafWatchdog;
  return {
    verdict: isNews ? { node, state: 'ready', message: deafWatchdog, away: deafWatchdog } : undefined,
    wakeAtMs,
  };
}

/** A host that is heard lives; what is to be said of it depends on its agent alone. */
function judgeAgent(node: Node, agent: AgentSeen | undefined, now: number, agentAwayLimitMs: number): Judgement {
  if (!agent || agent.condition === 'running') {
    const isNews = node.state !== 'ready' || node.away !== '';
    return { ...(isNews && { verdict: { node, state: 'ready', message: '', away: '' } }), wakeAtMs: never };
  }
  const lostAtMs = agent.sinceMs + agentAwayLimitMs;
  const awayAtMs = agent.sinceMs + awayMs;
  if (node.state === 'down' || now < awayAtMs) return { wakeAtMs: node.state === 'down' ? never : awayAtMs };
  const away = ailments[agent.condition];
  if (now < lostAtMs) {
    const isNews = node.state !== 'ready' || node.away !== away;
    return { ...(isNews && { verdict: { node, state: 'ready', message: away, away } }), wakeAtMs: lostAtMs };
  }
  const message = `${away}, for ${(agentAwayLimitMs / 1_000).toFixed(0)} s and more`;
  return { verdict: { node, state: 'down', message, away: '' }, wakeAtMs: never };
}
