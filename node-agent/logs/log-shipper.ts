/** Takes what containers print from their log files to wherever logs are kept. Implementation: ship (over a `LogSink`). */
import type { NodeId, TaskId } from '#proto/model/ids.ts';

/** One task's log: whose it is, and the file conmon writes (format `k8s-file`). The file need not exist yet. */
export interface LogSource {
  readonly taskId: TaskId;
  readonly project: string;
  readonly service: string;
  readonly slot: number;
  readonly nodeId: NodeId;
  /** The host's name, as people read it. */
  readonly node: string;
  readonly path: string;
  /** A file longer than this is rotated, where that is less than the agent's own limit; 0 or absent: at that one. */
  readonly maxBytes?: number;
}

export interface LogShipper {
  /** Ships this file from where it was left, also by an earlier agent; nothing where it is followed already. Never waits. */
  follow(source: LogSource): void;
  /**
   * Nothing more will be written: resolves when every line is kept elsewhere, and the task's position is forgotten, so that the
   * caller may delete the file. While nobody takes logs (NATS down) it waits; it rejects with the signal's reason when that aborts, and
   * the rest goes out after a later `follow` and `ended`. A task that is not followed resolves at once.
   */
  ended(taskId: TaskId, options?: { readonly signal?: AbortSignal }): Promise<void>;
  /** Stops following without shipping the rest, and forgets the position. */
  forget(taskId: TaskId): Promise<void>;
  /** What went out since the start; for metrics. */
  readonly counts: LogCounts;
  /** Writes down the positions and stops; what is not shipped is shipped by the next agent. */
  close(): Promise<void>;
}

export interface LogCounts {
  readonly lines: number;
  readonly bytes: number;
  readonly batches: number;
  /** Publications that failed and were tried again. */
  readonly retries: number;
  /** Bytes dropped because a file had to be rotated before they could go out. */
  readonly droppedBytes: number;
  readonly following: number;
}
