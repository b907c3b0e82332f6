/** Which nodes are down: judged by silence, with doubt about ourselves first. */
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { type KernelSeen, kernelVerdict, probeWords } from './kernel-verdict.ts';

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
/** So long before the end of that grace their kernels are asked: they may live where nothing of ours is heard. */
export const askMs = 1_500;
/** Silence before most nodes at once are believed to be down: more likely it is us. */
export const massSilenceMs = 6_000;

/** An agent that answers nobody for so long, while its host lives, is said to be away: a restart takes less. */
export const awayMs = 3_000;

/** How the agent is, as the watchdog of its host says. */
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
  /** No member of another machine is heard: it is we who are cut off, and nothing is known of any of them. */
  readonly deaf: boolean;
  /** When a node that is ready now could be down at the earliest; Infinity: never. */
  readonly wakeAtMs: number;
}

/**
 * The verdict over all nodes. Those that stay as they are get none. `agentAwayLimitMs`: a host that lives without its agent is left alone for
 * so long; then nobody can tell what becomes of its tasks, and they are replaced. Infinity: as long as it lives.
 */
export function judge(all: Iterable<Node>, hearing: Hearing, agentAwayLimitMs: number): HealthAdvice {
  const nodes = [...all];
  const { now, leaderSinceMs, laggedUntilMs, deafUntilMs, ownBootId } = hearing;
  const verdicts: Verdict[] = [];
  const silent: { node: Node; silentMs: number; heard: boolean; unsure: boolean; own: boolean }[] = [];
  const suspects: Node[] = [];
  const lapsing: Node[] = [];
  let listening = 0;
  let quiet = 0;
  let others = 0;
  let quietOthers = 0;
  let wakeAtMs = Number.POSITIVE_INFINITY;
  for (const node of nodes) {
    const last = hearing.lastBeatAt(node);
    // What was heard before this leadership says nothing: the node may have been talking to another leader since.
    const beat = last !== undefined && last >= leaderSinceMs ? last : undefined;
    const heard = beat !== undefined;
    const lastMs = beat ?? leaderSinceMs;
    const deafMs = lastMs < deafUntilMs ? deafUntilMs + graceMs : 0;
    const hungUp = heard && (hearing.hungUpAt(node) ?? Number.NEGATIVE_INFINITY) >= beat;
    const patienceMs = heard ? (hungUp ? restartMs : silenceMs) : graceMs;
    const judged = node.state === 'ready' || (node.state === 'unknown' && node.bootId !== '');
    const suspectAtMs = lastMs + (heard ? (hungUp ? 0 : suspectMs) : graceMs - askMs);
    const kernel = kernelVerdict(hearing.kernelOf(node), lastMs);
    if (!judged || now >= suspectAtMs) lapsing.push(node);
    if (judged) {
      if (now >= suspectAtMs) suspects.push(node);
      else wakeAtMs = Math.min(wakeAtMs, suspectAtMs);
    }
    const soonestMs = {
      untold: Math.max(lastMs, laggedUntilMs) + patienceMs,
      // The answers wake us.
      asking: Number.POSITIVE_INFINITY,
      lives: lastMs + agentAwayLimitMs,
      lived: lastMs + agentAwayLimitMs,
      dead: Math.max(suspectAtMs, laggedUntilMs + suspectMs),
    };
    const deadlineMs = Math.max(soonestMs[kernel], deafMs);
    if (judged) {
      const isQuiet = now - lastMs >= quietMs;
      const own = ownBootId !== undefined && node.bootId === ownBootId;
      listening++;
      if (isQuiet) quiet++;
      if (!own) others++;
      if (!own && isQuiet) quietOthers++;
      // Answers that are awaited, or came before we were cut off, are no sign that we hear anybody.
      const unsure = kernel === 'asking' || kernel === 'lived';
      if (now >= (unsure ? Math.max(soonestMs.untold, deafMs) : deadlineMs))
        silent.push({ node, silentMs: now - lastMs, heard, unsure, own });
    }
    if (now < deadlineMs) {
      if (judged || heard) wakeAtMs = Math.min(wakeAtMs, deadlineMs);
      // Who was given up comes back with a beat, not because its kernel is asked once more.
      if (node.state === 'down' && (!heard || hungUp || now - lastMs >= suspectMs)) continue;
      if (!heard || now - lastMs >= silenceMs) {
        // Left alone: what runs there goes on.
        if (kernel !== 'lives' || !judged) continue;
        const isNews = node.state !== 'ready' || node.away !== deafWatchdog;
        // Of a thousand that dial a new leader at once the last are heard when it has had time for them.
        const awayAtMs = Math.max(lastMs, laggedUntilMs) + (heard ? awayMs : graceMs);
        if (now < awayAtMs) wakeAtMs = Math.min(wakeAtMs, awayAtMs);
        else if (isNews) verdicts.push({ node, state: 'ready', message: deafWatchdog, away: deafWatchdog });
        continue;
      }
      const living = judgeAgent(node, hearing.agentOf(node), now, agentAwayLimitMs);
      if (living.verdict) verdicts.push(living.verdict);
      wakeAtMs = Math.min(wakeAtMs, living.wakeAtMs);
    }
  }
  // Nobody is left to take over, so that a verdict would only cost the tasks of living nodes their place. Of two machines the one that
  // leads takes over from the other; of more it does not take over from all of them at once.
  const silentOthers = silent.filter(({ own }) => !own).length;
  const isBeside = others < listening;
  const deaf = others > (isBeside ? 1 : 0) && quietOthers === others && silentOthers === others;
  const mass = quiet >= 2 && quiet * 2 > listening;
  const names = silent.length > 0 ? new Map(nodes.map(({ id, name }) => [id, name])) : undefined;
  const nameOf = (id: NodeId) => names?.get(id) ?? id;
  for (const { node, silentMs, heard, unsure, own } of silent) {
    const unknown = deaf && !own;
    if (unsure && !unknown) continue; // Who hears somebody waits for what is said of this one.
    if ((mass || deaf) && silentMs < massSilenceMs) {
      wakeAtMs = Math.min(wakeAtMs, now + massSilenceMs - silentMs);
      continue;
    }
    const kernel = hearing.kernelOf(node);
    const told = kernel.answeredAtMs === undefined ? '' : `; ${probeWords(kernel, nameOf)}`;
    const said = heard
      ? `not heard for ${(silentMs / 1_000).toFixed(1)} s${told}`
      : 'not heard since this leader began';
    if (!unknown) verdicts.push({ node, state: 'down', message: said, away: '' });
    else if (node.state !== 'unknown')
      verdicts.push({ node, state: 'unknown', message: isBeside ? deafBeside : deafAlone, away: node.away });
  }
  return { verdicts, suspects, lapsing, deaf, wakeAtMs };
}

/** A host that is heard lives; what is to be said of it depends on its agent alone. */
function judgeAgent(
  node: Node,
  agent: AgentSeen | undefined,
  now: number,
  agentAwayLimitMs: number,
): { readonly verdict?: Verdict; readonly wakeAtMs: number } {
  const never = Number.POSITIVE_INFINITY;
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
