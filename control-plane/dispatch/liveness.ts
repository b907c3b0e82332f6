/** Last beats of the nodes, in the memory of the leader. */
import type { Clock } from '#proto/kernel/clock.ts';
import type { NodeId } from '#proto/model/ids.ts';
import { isOff } from '#proto/model/wall-clock.ts';
import type { Liveness } from '../controllers/liveness.ts';
import type { KernelSeen } from '../reconcilers/kernel-verdict.ts';
import type { AgentSeen } from '../reconcilers/node-health.ts';
import { KernelProbes, type KernelProbesParts } from './kernel-probes.ts';

/** Beats after a silence longer than this are news. */
const newsAfterMs = 1_000;

export class BeatLiveness implements Liveness {
  readonly #clock: Clock;
  readonly #last = new Map<NodeId, number>();
  readonly #hungUp = new Map<NodeId, number>();
  readonly #agents = new Map<NodeId, AgentSeen>();
  readonly #clocks = new Map<NodeId, number>();
  /** Nodes that are to be fenced: the revision of their record when that was decided. */
  readonly #withheld = new Map<NodeId, number>();
  readonly #applied: (node: NodeId) => number | undefined;
  readonly #probes: KernelProbes | undefined;
  readonly #listeners = new Set<(node: NodeId) => void>();
  #lastArrivalMs = Number.NEGATIVE_INFINITY;

  /** `applied`: the revision that a node's agent has said, in its session now, to hold. */
  constructor(
    clock: Clock,
    applied: (node: NodeId) => number | undefined = () => undefined,
    probes?: Omit<KernelProbesParts, 'clock' | 'tell'>,
  ) {
    this.#probes = probes && new KernelProbes({ ...probes, clock, tell: (node) => this.tell(node) });
    this.#clock = clock;
    this.#applied = applied;
  }

  lastBeatAt(node: NodeId): number | undefined {
    return this.#last.get(node);
  }

  get lastArrivalMs(): number {
    return this.#lastArrivalMs;
  }

  hungUpAt(node: NodeId): number | undefined {
    return this.#hungUp.get(node);
  }

  agentOf(node: NodeId): AgentSeen | undefined {
    return this.#agents.get(node);
  }

  clocks(): ReadonlyMap<NodeId, number> {
    return this.#clocks;
  }

  /** Its wall clock said so when it sent the beat that was just heard; 0: it does not tell. */
  told(node: NodeId, atMs: number): void {
    if (atMs === 0) return;
    const aheadMs = atMs - this.#clock.now();
    const before = this.#clocks.get(node);
    // A beat can only be late, and makes a clock look behind; so that is believed bit by bit.
    const now = before === undefined || aheadMs > before ? aheadMs : before + (aheadMs - before) / 4;
    this.#clocks.set(node, now);
    if (isOff(now) !== isOff(before ?? 0)) this.tell(node);
  }

  kernelOf(node: NodeId): KernelSeen {
    return this.#probes?.of(node) ?? { answeredAtMs: undefined, round: undefined };
  }

  suspect(node: NodeId): void {
    this.#probes?.suspect(node);
  }

  /** What `peer` heard of `node` when it was asked to probe it. */
  probed(peer: NodeId, node: NodeId, answered: boolean): void {
    this.#probes?.said(peer, node, answered);
  }

  appliedRevision(node: NodeId): number | undefined {
    return this.#applied(node);
  }

  withhold(node: NodeId, modRevision: number): void {
    this.#withheld.set(node, modRevision);
  }

  /** Any write of the record since then makes that decision void: it was to be committed on the record as it was. */
  withheld(node: NodeId, modRevision: number): boolean {
    const decidedOn = this.#withheld.get(node);
    if (decidedOn === undefined) return false;
    if (decidedOn >= modRevision) return true;
    this.#withheld.delete(node);
    return false;
  }

  withheldNodes(): Iterable<NodeId> {
    return this.#withheld.keys();
  }

  onChange(listener: (node: NodeId) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** `condition`: of its agent, where the beat says it. */
  beat(node: NodeId, condition?: AgentSeen['condition']): void {
    const now = this.#clock.monotonic();
    const last = this.#last.get(node);
    this.#last.set(node, now);
    if (last === undefined) this.#lastArrivalMs = now;
    this.#hungUp.delete(node);
    this.#probes?.heard(node);
    const isNews = this.#note(node, condition, now);
    if (isNews || last === undefined || now - last > newsAfterMs) this.tell(node);
  }

  /** True where its agent is otherwise than before. An illness that turns into another one has lasted since the first. */
  #note(node: NodeId, condition: AgentSeen['condition'] | undefined, now: number): boolean {
    const before = this.#agents.get(node);
    if (condition === undefined || before?.condition === condition) return false;
    const goesOn = before && before.condition !== 'running' && condition !== 'running';
    this.#agents.set(node, { condition, sinceMs: goesOn ? before.sinceMs : now });
    return before !== undefined || condition !== 'running';
  }

  /** Its stream broke. The beats heard so far still count: only silence makes a node down. */
  hungUp(node: NodeId): void {
    if (this.#last.has(node)) this.#hungUp.set(node, this.#clock.monotonic());
    this.tell(node);
  }

  /** It is no member any more. */
  forget(node: NodeId): void {
    this.#last.delete(node);
    this.#hungUp.delete(node);
    this.#agents.delete(node);
    this.#clocks.delete(node);
    this.#probes?.forget(node);
    this.#withheld.delete(node);
  }

  /** A new leadership begins: every node gets its full grace again. */
  reset(): void {
    this.#last.clear();
    this.#lastArrivalMs = Number.NEGATIVE_INFINITY;
    this.#hungUp.clear();
    this.#agents.clear();
    this.#clocks.clear();
    this.#probes?.reset();
    this.#withheld.clear();
  }

  /** Something about it is to be looked at. */
  tell(node: NodeId): void {
    for (const listener of this.#listeners) listener(node);
  }
}
