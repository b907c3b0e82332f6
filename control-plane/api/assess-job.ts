/** How far a job is: pure. Its newest iteration says it; one with a schedule is as it should be while it waits for the next instant. */
import { type Iteration, isPerNode, latestIteration } from '#proto/model/job.ts';
import type { Service } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';

/** The completions of an iteration, those there are to be, and what it came to. */
export interface IterationProgress {
  readonly iteration: Iteration;
  readonly completed: number;
  readonly wanted: number;
}

/** Of the newest iteration; undefined where none has begun. `nodes`: those that a task of it may be on. */
export function iterationProgress(
  service: Service,
  tasks: Iterable<Task>,
  nodes: () => number,
): IterationProgress | undefined {
  const iteration = latestIteration(service);
  if (!iteration) return undefined;
  const perNode = isPerNode(service.spec);
  if (iteration.state !== 'running') {
    const ended = iteration.completed + iteration.failed;
    return { iteration, completed: iteration.completed, wanted: perNode ? ended : iteration.completions };
  }
  const done = new Set<string | number>();
  for (const task of tasks)
    if (task.iteration === iteration.number && task.state === 'complete') done.add(task.slot || task.nodeId);
  return { iteration, completed: done.size, wanted: perNode ? Math.max(nodes(), done.size) : iteration.completions };
}

/** The iteration that whoever waits for the service waits for: of a scheduled one, only what was asked for since. */
export function awaitedIteration(service: Service, sinceMs: number): Iteration | undefined {
  const iteration = latestIteration(service);
  if (!iteration || !service.spec.schedule) return iteration;
  return iteration.dueAtMs === 0 && iteration.startedAtMs >= sinceMs ? iteration : undefined;
}
