/** What tasks use and who is called: the leader's memory of what agents measure, as the controllers see it. */
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';

export interface Usage {
  /** Averaged over some seconds, from `sinceMs` (monotonic) on; undefined where nothing was said of it of late. */
  ofTask(task: TaskId, sinceMs: number): TaskUsage | undefined;
  /** New connections to the service, on all nodes together. */
  requestsPerSecond(service: ServiceId): number;
  /** `clock.monotonic()` ms when it was last called, or had connections open; undefined: never since this leader began. */
  lastRequestAt(service: ServiceId): number | undefined;
  /** Calls `listener` when requests wait on a node for a service that has no task. The result unsubscribes. */
  onCall(listener: (service: ServiceId, node: NodeId) => void): () => void;
}

export interface TaskUsage {
  /** Thousandths of a core. */
  readonly cpuMillis: number;
  readonly memoryBytes: number;
}
