/** What health checks said of late: kept by the agents, which are asked when somebody wants to see it. */
import type { CheckResult } from '#proto/gen/gantry/v1/agent.ts';
import type { InspectRequest, InspectResponse } from '#proto/gen/gantry/v1/operator.ts';
import { describe } from '#proto/kernel/errors.ts';
import type { NodeId } from '#proto/model/ids.ts';
import { inspect } from './list.ts';
import type { OperatorParts } from './parts.ts';

/** A node that has not answered by then is not waited for: the rest is known here. */
const patienceMs = 1_000;

/** As `inspect`, with the last results of a running task's health check where its node tells them. */
export async function inspectWithChecks(parts: OperatorParts, request: InspectRequest): Promise<InspectResponse> {
  const response = inspect(parts, request);
  const task = response.object?.$case === 'task' ? response.object.value : undefined;
  if (task?.state !== 'running' || task.health === '') return response;
  return { ...response, checks: await checksOf(parts, task.nodeId as NodeId, task.id) };
}

/** The last results of a task's health check, oldest first; none where its node does not tell. */
export async function checksOf(
  { relays, clock, log }: OperatorParts,
  node: NodeId,
  taskId: string,
): Promise<CheckResult[]> {
  const checks: CheckResult[] = [];
  try {
    const channel = await relays.open(node, { $case: 'checks', value: { taskId } });
    const timer = clock.after(patienceMs, () => channel.close());
    try {
      for await (const { body } of channel.frames) if (body?.$case === 'check') checks.push(body.value);
    } finally {
      timer.cancel();
      channel.close();
    }
  } catch (error) {
    log.info('a node did not tell what its checks said', { node, why: describe(error) });
  }
  return checks;
}
