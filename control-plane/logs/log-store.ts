/** What tasks printed, kept after they and their nodes are gone. Implementation: nats-log-store. */

/** `tail` counts lines over all tasks of the query, after merging. */
export interface LogQuery {
  readonly project: string;
  readonly service: string;
  /** 0 or none: every slot. */
  readonly slot?: number;
  readonly taskId?: string;
  /** Goes on with what is printed from now on, until the signal aborts. */
  readonly follow?: boolean;
  /** The last lines only; 0 or none: all. */
  readonly tail?: number;
  /** Lines stamped at or after this, ms since the epoch; 0 or none: all. */
  readonly sinceMs?: number;
  readonly signal?: AbortSignal;
}

/** A line as its container wrote it, without the newline; long lines are whole again. The fields of `LogLine` on the wire. */
export interface LogEntry {
  readonly project: string;
  readonly service: string;
  readonly slot: number;
  readonly taskId: string;
  /** The host's name. */
  readonly node: string;
  /** Microseconds since the epoch. */
  readonly atUs: number;
  /** `gap`: lines are missing here, and the text says why. */
  readonly stream: 'stdout' | 'stderr' | 'gap';
  readonly text: Buffer;
}

export interface LogStore {
  /**
   * Lines in the order of their time over all tasks of the query; each task's own in the order they were written. Ends after the
   * last line kept, or, following, when the signal aborts. Throws Fault `unavailable` where NATS is not reached.
   */
  read(query: LogQuery): AsyncIterable<LogEntry>;
}
