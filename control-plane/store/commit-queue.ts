/** Merges the commits of many callers into few transactions: what comes while one is under way goes with the next. */

/** A commit that waits its turn. */
export interface QueuedCommit {
  /** Keys it guards and writes; commits that share one are never merged. */
  readonly keys: readonly string[];
  readonly bytes: number;
  /** Only commits of one epoch are merged. */
  readonly epoch: number | undefined;
}

export interface CommitLimits {
  /** Keys of a merged transaction. */
  readonly keys: number;
  readonly bytes: number;
  /** Transactions under way at once. */
  readonly inFlight: number;
}

/**
 * `run` gets commits that may go together; its promise ends their turn and never rejects.
 * A commit larger than the limits goes alone.
 */
export class CommitQueue<C extends QueuedCommit> {
  readonly #limits: CommitLimits;
  readonly #run: (batch: readonly C[]) => Promise<void>;
  #waiting: C[] = [];
  #underWay = 0;
  #scheduled = false;

  constructor(limits: CommitLimits, run: (batch: readonly C[]) => Promise<void>) {
    this.#limits = limits;
    this.#run = run;
  }

  add(commit: C): void {
    this.#waiting.push(commit);
    this.#schedule();
  }

  /** What has not been started yet; the queue is empty afterwards. */
  drain(): C[] {
    return this.#waiting.splice(0);
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    // After the callers of this turn, so that they go together.
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#start();
    });
  }

  #start(): void {
    while (this.#waiting.length > 0 && this.#underWay < this.#limits.inFlight) {
      const { batch, rest } = nextBatch(this.#waiting, this.#limits);
      this.#waiting = rest;
      this.#underWay++;
      void this.#run(batch).finally(() => {
        this.#underWay--;
        this.#start();
      });
    }
  }
}

/** The first commit and all later ones that may go with it, and what is left, in order. */
export function nextBatch<C extends QueuedCommit>(
  waiting: readonly C[],
  limits: CommitLimits,
): { readonly batch: C[]; readonly rest: C[] } {
  const batch: C[] = [];
  const rest: C[] = [];
  const taken = new Set<string>();
  let keys = 0;
  let bytes = 0;
  for (const commit of waiting) {
    const fits =
      batch.length === 0 ||
      (commit.epoch === batch[0]!.epoch &&
        keys + commit.keys.length <= limits.keys &&
        bytes + commit.bytes <= limits.bytes &&
        !commit.keys.some((key) => taken.has(key)));
    if (!fits) {
      rest.push(commit);
      // What waits keeps its keys, so that a later commit of the same key does not overtake it.
      for (const key of commit.keys) taken.add(key);
      continue;
    }
    batch.push(commit);
    keys += commit.keys.length;
    bytes += commit.bytes;
    for (const key of commit.keys) taken.add(key);
  }
  return { batch, rest };
}
