/** What happened in the cluster, in words, for people who watch or look back. Implementation: ring-event-log. */
import type { Scope } from '#proto/kernel/scope.ts';
import type { Event } from '#proto/model/cluster.ts';

export interface EventQuery {
  /** Goes on with what happens from now on, until the signal aborts. */
  readonly follow?: boolean;
  /** Events at or after this, ms since the epoch; 0 or none: all that are kept. Following without it begins now. */
  readonly sinceMs?: number;
  readonly signal?: AbortSignal;
}

export interface EventLog {
  /** Takes what nobody commits: something has happened on a node. To be told to one replica, which keeps it if it leads. */
  note(event: Omit<Event, 'revision'>): void;
  /** This replica leads while the scope is open: what happens, and what happened while nobody led, is kept. */
  lead(term: Scope): void;
  /** In order of commit. Reads what the stream keeps, or, while it is not reached, the last 10,000 seen by this replica. */
  read(query: EventQuery): AsyncIterable<Event>;
  close(): Promise<void>;
}
