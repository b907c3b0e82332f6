/** Nodes on which tasks of a service's revision failed again and again of late without having run: others go first. */
import type { NodeId } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { endedQuickly } from './restart.ts';
import { hasFailed } from './seats.ts';

const shunAfter = 3;
const shunForMs = 300_000;

export function shunnedNodes({ revision }: Service, tasks: Iterable<Task>, now: number): ReadonlySet<NodeId> {
  const failures = new Map<NodeId, number>();
  for (const task of tasks) {
    if (task.revision !== revision || !hasFailed(task) || !endedQuickly(task)) continue;
    if (task.nodeId === '' || task.stateAtMs < now - shunForMs) continue;
    failures.set(task.nodeId, (failures.get(task.nodeId) ?? 0) + 1);
  }
  return new Set([...failures].filter(([, count]) => count >= shunAfter).map(([id]) => id));
}
