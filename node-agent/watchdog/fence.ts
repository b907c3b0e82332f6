/** Ends the singletons of this node with its lease. Implementations: host-fence (guards and control groups), fake-fence (tests, simulator). */
import type { TaskId } from '#proto/model/ids.ts';

export interface Fence {
  /** A lease is held that a singleton may begin under. */
  mayBegin(): boolean;
  /** From here on the task's processes end with the lease. Its container is created, not started. Fault `unavailable`: it cannot be promised. */
  arm(task: TaskId, process: FencedProcess): Promise<void>;
  /** Why the lease ended it; undefined: it did not. */
  killed(task: TaskId): string | undefined;
  /** Ends what is left of its processes, and resolves when nothing is. */
  empty(task: TaskId): Promise<void>;
  /** Its remains have gone. */
  forget(task: TaskId): void;
}

export interface FencedProcess {
  /** The first process of its container. */
  readonly pid: number;
  /** What asks it to stop, such as SIGTERM or 15. */
  readonly signal: string;
}
