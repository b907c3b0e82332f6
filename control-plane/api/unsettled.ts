/** Which services of a plan have tasks that are still on their way: what is planned for those may be otherwise in a moment. Pure. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { PlannedChange } from '#proto/gen/gantry/v1/operator.ts';
import type { ServiceId } from '#proto/model/ids.ts';
import { isJob } from '#proto/model/job.ts';
import { assess } from './assess.ts';

/** `shop/web: 1/3, web.2 is assigned` for each. Jobs are left out: their tasks come and go. */
export function unsettled(
  snapshot: Snapshot,
  planned: readonly Pick<PlannedChange, 'serviceId' | 'name'>[],
  now: number,
): string[] {
  return planned.flatMap(({ serviceId, name }) => {
    const service = snapshot.service(serviceId as ServiceId);
    if (!service || isJob(service.spec) || service.rollout.state === 'paused') return [];
    const options = { now, sinceMs: service.updatedAtMs, rollback: true };
    const { outcome, running, wanted, message } = assess(snapshot, service.id, name, options);
    return outcome === 'converged' || outcome === 'held' ? [] : [`${name}: ${running}/${wanted}, ${message}`];
  });
}
