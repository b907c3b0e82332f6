/** Where events are kept beyond the lives of replicas, once each. Implementations: nats-event-stream, and one in memory for tests, which keeps the same contract. */
import type { Event } from '#proto/model/cluster.ts';

export interface KeptEvent {
  /** The same for the same event, whoever keeps it. */
  readonly id: string;
  /** All that happened up to that revision had been kept when this was. */
  readonly whole: number;
  readonly event: Event;
}

export interface EventStream {
  /** Resolves when all are kept. What was kept under that id within two minutes is not kept again. Fault `unavailable`: some of them may be. */
  keep(events: readonly KeptEvent[]): Promise<void>;
  /** Those kept last, oldest first: `count`, or as many as there are. Fault `unavailable`. */
  last(count: number): Promise<readonly KeptEvent[]>;
  /** Those that were kept and happened at `sinceMs` or later, in the order kept; 0: all. Fault `unavailable`. */
  since(sinceMs: number, signal?: AbortSignal): AsyncIterable<Event>;
}

/** Events are kept for so long. */
export const eventsKeptMs = 30 * 24 * 3_600_000;
