/** Asks the kernel of a silent host itself, from here and from other hosts, and keeps what each heard: the leader's memory of probes. */
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type KernelProbe, probeMs } from '#proto/kernel-probe.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { KernelRound, KernelSeen } from '../reconcilers/kernel-verdict.ts';

export interface KernelProbesParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly probe: KernelProbe;
  /** Of the node, on the hosts' network; undefined: it is no member. */
  readonly addressOf: (node: NodeId) => string | undefined;
  /** Names of nodes that were heard just now, without this one, in an order of chance. */
  readonly peersOf: (node: NodeId) => readonly NodeId[];
  /** False: it has no stream at the moment. */
  readonly ask: (peer: NodeId, node: NodeId, address: string) => boolean;
  /** There is something new about it. */
  readonly tell: (node: NodeId) => void;
}

/** A peer that has not said what it heard by then does not count. */
const roundMs = 700;
/**
 * After how long a silent node is probed again, the n-th time: closely at first, for a host that ends closes its connections before
 * its kernel has gone, and ever less often.
 */
const againMs = (rounds: number) => Math.min(1_000, Math.round(100 * 1.4 ** (rounds - 1)));
/** Whether a node answers probes at all is looked at so often; and so often while it never has, for it may have been busy. */
const knownMs = 60_000;
const unknownMs = 5_000;
const mostPeers = 3;
/** Rounds of one second, and at once before it counts: of thousands that are silent at once, as when they dial a new leader, each waits for its turn. */
const mostRoundsPerS = 300;
const mostRoundsAtOnce = 100;
const turnMs = 10;

export class KernelProbes {
  readonly #parts: KernelProbesParts;
  /** When each node last answered a probe, from here or of a peer. */
  readonly #answeredAt = new Map<NodeId, number>();
  readonly #checkedAt = new Map<NodeId, number>();
  /** Whether each answers at all. */
  readonly #answers = new Map<NodeId, boolean>();
  /** A look at it was not answered: it is behind a firewall if it is heard after that, else it may have died. */
  readonly #unanswered = new Set<NodeId>();
  readonly #rounds = new Map<NodeId, KernelRound>();
  /** How many rounds there have been since it was heard. */
  readonly #silentRounds = new Map<NodeId, number>();
  readonly #timers = new Set<Timer>();
  /** They wait for their turn: those that were heard before those that never were, for of them nobody expects to be silent. */
  readonly #waiting = { heard: new Set<NodeId>(), others: new Set<NodeId>() };
  /** What of the rounds has been used up, as the instant at which nothing of it counts any more. */
  #usedUntilMs = 0;
  #turn: Timer | undefined;

  constructor(parts: KernelProbesParts) {
    this.#parts = parts;
  }

  of(node: NodeId): KernelSeen {
    const { heard, others } = this.#waiting;
    return {
      answeredAtMs: this.#answeredAt.get(node),
      answers: this.#answers.get(node),
      round: this.#rounds.get(node),
      waits: heard.has(node) || others.has(node),
    };
  }

  /** It is heard: now and then it is seen whether its kernel answers probes, or a firewall is in the way. */
  heard(node: NodeId): void {
    const { clock, random } = this.#parts;
    const now = clock.monotonic();
    this.#silentRounds.delete(node);
    if (this.#unanswered.delete(node)) this.#answers.set(node, false);
    this.#waitNoMore(node);
    const checkedAt = this.#checkedAt.get(node);
    const againAfterMs = this.#answers.get(node) ? knownMs : unknownMs;
    if (checkedAt !== undefined && now - checkedAt < againAfterMs) return;
    this.#checkedAt.set(node, now);
    this.#after(random.int(500), () => void this.#look(node));
  }

  /** Begins a round when it has its turn, unless one is under way, or has begun just now. */
  suspect(node: NodeId): void {
    const { clock, addressOf } = this.#parts;
    const now = clock.monotonic();
    const last = this.#rounds.get(node);
    const rounds = this.#silentRounds.get(node) ?? 0;
    if (!addressOf(node) || (last && (!isOver(last) || now - last.askedAtMs < againMs(rounds)))) return;
    const { heard, others } = this.#waiting;
    (this.#checkedAt.has(node) ? heard : others).add(node);
    this.#takeTurn();
  }

  #takeTurn(): void {
    const { clock } = this.#parts;
    const { heard, others } = this.#waiting;
    const perRoundMs = 1_000 / mostRoundsPerS;
    for (const waiting of [heard, others])
      for (const node of waiting) {
        const now = clock.monotonic();
        if (this.#usedUntilMs - now > (mostRoundsAtOnce - 1) * perRoundMs) {
          this.#turn ??= clock.after(turnMs, () => {
            this.#turn = undefined;
            this.#takeTurn();
          });
          return;
        }
        this.#usedUntilMs = Math.max(this.#usedUntilMs, now) + perRoundMs;
        waiting.delete(node);
        this.#begin(node);
      }
  }

  #waitNoMore(node: NodeId): void {
    this.#waiting.heard.delete(node);
    this.#waiting.others.delete(node);
  }

  #begin(node: NodeId): void {
    const { clock, addressOf, peersOf, ask, tell } = this.#parts;
    const now = clock.monotonic();
    const address = addressOf(node);
    if (!address) return;
    const rounds = this.#silentRounds.get(node) ?? 0;
    this.#silentRounds.set(node, rounds + 1);
    const peers = new Map<NodeId, boolean | undefined>();
    for (const peer of peersOf(node)) {
      if (peers.size === mostPeers) break;
      if (ask(peer, node, address)) peers.set(peer, undefined);
    }
    const round: KernelRound = { askedAtMs: now, leader: undefined, peers, closed: false };
    this.#rounds.set(node, round);
    void this.#probe(node).then((answered) => this.#note(node, round, { leader: answered }));
    this.#after(roundMs, () => this.#note(node, round, { closed: true }));
    this.#after(againMs(rounds + 1), () => tell(node));
  }

  /** What a peer has heard of it. */
  said(peer: NodeId, node: NodeId, answered: boolean): void {
    const round = this.#rounds.get(node);
    if (!round?.peers.has(peer) || round.peers.get(peer) !== undefined) return;
    if (answered) this.#answered(node);
    this.#note(node, round, { peers: new Map(round.peers).set(peer, answered) });
  }

  forget(node: NodeId): void {
    for (const map of [this.#answeredAt, this.#checkedAt, this.#answers, this.#rounds, this.#silentRounds])
      map.delete(node);
    this.#unanswered.delete(node);
    this.#waitNoMore(node);
  }

  reset(): void {
    for (const map of [this.#answeredAt, this.#checkedAt, this.#answers, this.#rounds, this.#silentRounds]) map.clear();
    this.#unanswered.clear();
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#waiting.heard.clear();
    this.#waiting.others.clear();
    this.#turn?.cancel();
    this.#turn = undefined;
  }

  async #look(node: NodeId): Promise<void> {
    if (!(await this.#probe(node)) && this.#checkedAt.has(node)) this.#unanswered.add(node);
  }

  #answered(node: NodeId): void {
    this.#answeredAt.set(node, this.#parts.clock.monotonic());
    this.#answers.set(node, true);
    this.#unanswered.delete(node);
  }

  async #probe(node: NodeId): Promise<boolean> {
    const address = this.#parts.addressOf(node);
    if (!address) return false;
    const answered = await this.#parts.probe(address, probeMs);
    if (answered && this.#parts.addressOf(node) !== undefined) this.#answered(node);
    return answered;
  }

  /** Only of the round under way: what comes later is about another silence. */
  #note(node: NodeId, { askedAtMs }: KernelRound, news: Partial<KernelRound>): void {
    const round = this.#rounds.get(node);
    if (round?.askedAtMs !== askedAtMs) return;
    this.#rounds.set(node, { ...round, ...news });
    this.#parts.tell(node);
  }

  #after(ms: number, action: () => void): void {
    const timer = this.#parts.clock.after(ms, () => {
      this.#timers.delete(timer);
      action();
    });
    this.#timers.add(timer);
  }
}

/** All have said what they heard, or their time is up. */
function isOver({ leader, peers, closed }: KernelRound): boolean {
  return closed || ![leader, ...peers.values()].includes(undefined);
}
