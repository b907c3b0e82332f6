/** What agents measure, in the memory of the leader alone: nobody else needs it, and in a moment it is old. */
import type { UsageBatch } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { type NodeId, type ServiceId, serviceId, type TaskId, taskId } from '#proto/model/ids.ts';
import type { TaskUsage, Usage } from '../controllers/usage.ts';

/** What is older says nothing of now; agents speak every 2 s. */
const recentMs = 6_000;
/** A task of which nothing was heard for so long is not measured. */
const staleMs = 10_000;
/** A service that was not called for so long is as one that never was. */
const longAgoMs = 48 * 3_600_000;
const sweepEveryMs = 30_000;

interface Sample extends TaskUsage {
  readonly atMs: number;
}

interface Traffic {
  readonly counts: { readonly atMs: number; readonly count: number }[];
  lastAtMs: number;
}

export class UsageDesk implements Usage {
  readonly #clock: Clock;
  readonly #tasks = new Map<TaskId, Sample[]>();
  readonly #services = new Map<ServiceId, Traffic>();
  readonly #listeners = new Set<(service: ServiceId, node: NodeId) => void>();
  #sweptAtMs = 0;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** `serviceOf`: whose a task is; undefined: nobody's that is known. */
  take(batch: UsageBatch, serviceOf: (task: TaskId) => ServiceId | undefined): void {
    const now = this.#clock.monotonic();
    for (const { taskId: task, cpuMillis, memoryBytes, connections } of batch.tasks) {
      const id = taskId(task);
      const service = serviceOf(id);
      if (service === undefined) continue;
      const samples = (this.#tasks.get(id) ?? []).filter(({ atMs }) => now - atMs < recentMs);
      this.#tasks.set(id, [...samples, { atMs: now, cpuMillis, memoryBytes }]);
      if (connections > 0) this.#trafficOf(service).lastAtMs = now;
    }
    for (const { serviceId: service, connections } of batch.services) {
      if (connections === 0) continue;
      const traffic = this.#trafficOf(serviceId(service));
      traffic.lastAtMs = now;
      traffic.counts.push({ atMs: now, count: connections });
      while (now - traffic.counts[0]!.atMs >= recentMs) traffic.counts.shift();
    }
    if (now - this.#sweptAtMs >= sweepEveryMs) this.#sweep(now);
  }

  /** Requests wait on `node` for a task of the service. */
  called(service: ServiceId, node: NodeId): void {
    this.#trafficOf(service).lastAtMs = this.#clock.monotonic();
    for (const listener of this.#listeners) listener(service, node);
  }

  ofTask(task: TaskId, sinceMs: number): TaskUsage | undefined {
    const fromMs = Math.max(sinceMs, this.#clock.monotonic() - staleMs);
    const samples = (this.#tasks.get(task) ?? []).filter(({ atMs }) => atMs > fromMs);
    if (samples.length === 0) return undefined;
    const mean = (of: (sample: Sample) => number) =>
      samples.reduce((sum, sample) => sum + of(sample), 0) / samples.length;
    return { cpuMillis: mean((sample) => sample.cpuMillis), memoryBytes: mean((sample) => sample.memoryBytes) };
  }

  requestsPerSecond(service: ServiceId): number {
    const since = this.#clock.monotonic() - recentMs;
    const counts = this.#services.get(service)?.counts ?? [];
    const sum = counts.reduce((total, { atMs, count }) => total + (atMs > since ? count : 0), 0);
    return (sum * 1_000) / recentMs;
  }

  lastRequestAt(service: ServiceId): number | undefined {
    return this.#services.get(service)?.lastAtMs;
  }

  onCall(listener: (service: ServiceId, node: NodeId) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** A new leadership begins: it knows nothing yet. */
  reset(): void {
    this.#tasks.clear();
    this.#services.clear();
  }

  #trafficOf(service: ServiceId): Traffic {
    const known = this.#services.get(service);
    if (known) return known;
    const traffic: Traffic = { counts: [], lastAtMs: this.#clock.monotonic() };
    this.#services.set(service, traffic);
    return traffic;
  }

  /** Tasks that have ended, and services that are gone. */
  #sweep(now: number): void {
    this.#sweptAtMs = now;
    for (const [task, samples] of this.#tasks) if (now - samples.at(-1)!.atMs >= staleMs) this.#tasks.delete(task);
    for (const [service, { lastAtMs }] of this.#services)
      if (now - lastAtMs >= longAgoMs) this.#services.delete(service);
  }
}
