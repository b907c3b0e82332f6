/** Last beats of the nodes, in the memory of the leader. */
import type { Clock } from '#proto/kernel/clock.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Liveness } from '../controllers/liveness.ts';

/** Beats after a silence longer than this are news. */
const newsAfterMs = 1_000;

export class BeatLiveness implements Liveness {
  readonly #clock: Clock;
  readonly #last = new Map<NodeId, number>();
  readonly #hungUp = new Map<NodeId, number>();
  readonly #listeners = new Set<(node: NodeId) => void>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  lastBeatAt(node: NodeId): number | undefined {
    return this.#last.get(node);
  }

  hungUpAt(node: NodeId): number | undefined {
    return this.#hungUp.get(node);
  }

  onChange(listener: (node: NodeId) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  beat(node: NodeId): void {
    const now = this.#clock.monotonic();
    const last = this.#last.get(node);
    this.#last.set(node, now);
    this.#hungUp.delete(node);
    if (last === undefined || now - last > newsAfterMs) this.#tell(node);
  }

  /** Its stream broke. The beats heard so far still count: only silence makes a node down. */
  hungUp(node: NodeId): void {
    if (this.#last.has(node)) this.#hungUp.set(node, this.#clock.monotonic());
    this.#tell(node);
  }

  /** It is no member any more. */
  forget(node: NodeId): void {
    this.#last.delete(node);
    this.#hungUp.delete(node);
  }

  /** A new leadership begins: every node gets its full grace again. */
  reset(): void {
    this.#last.clear();
    this.#hungUp.clear();
  }

  #tell(node: NodeId): void {
    for (const listener of this.#listeners) listener(node);
  }
}
