/** What an autoscaled service does now, out of what its tasks are and what was measured. */
import type { Load } from '#control-plane/reconcilers/autoscale.ts';
import { isUp } from '#control-plane/reconcilers/seats.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Service } from '#proto/model/service.ts';
import { isActive } from '#proto/model/task.ts';
import type { Usage } from './usage.ts';

const oneCoreMillis = 1_000;
/** Agents report every 2 s: who called since is not known yet, and nobody may be taken to be idle for that. */
const unheardMs = 2_000;

/** Monotonic ms. `changedAtMs`: what tasks did before is not what they do now. `sinceMs`: nothing is known of before. */
export interface LoadTimes {
  readonly nowMs: number;
  readonly changedAtMs: number;
  readonly sinceMs: number;
}

export function loadOf(
  service: Service,
  snapshot: Snapshot,
  usage: Pick<Usage, 'ofTask' | 'requestsPerSecond' | 'lastRequestAt'>,
  { nowMs, changedAtMs, sinceMs }: LoadTimes,
): Omit<Load, 'calledAt'> {
  const { limits, reservations } = service.spec.template;
  const cpuMillis = reservations.cpuMillis || limits.cpuMillis || oneCoreMillis;
  const memoryBytes = reservations.memoryBytes || limits.memoryBytes || Number.POSITIVE_INFINITY;
  let measured = false;
  const tasks = [];
  for (const task of snapshot.tasksOfService(service.id)) {
    if (!isActive(task)) continue;
    const used = usage.ofTask(task.id, changedAtMs);
    measured ||= used !== undefined;
    tasks.push({
      ready: isUp(task),
      cpuPercent: used && (used.cpuMillis / cpuMillis) * 100,
      memoryPercent: used && (used.memoryBytes / memoryBytes) * 100,
    });
  }
  return {
    tasks,
    // Who counts calls is where the tasks are, too: while nobody reports, nobody counts.
    requestsPerSecond: measured ? usage.requestsPerSecond(service.id) : undefined,
    idleForMs: Math.max(0, nowMs - unheardMs - Math.max(sinceMs, usage.lastRequestAt(service.id) ?? 0)),
  };
}
