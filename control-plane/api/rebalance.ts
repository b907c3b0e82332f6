/** Which tasks would be moved to even out nodes, and the ask to begin with it. */
import { planRebalance } from '#control-plane/controllers/plan-rebalance.ts';
import { rebalanceGuard } from '#control-plane/controllers/rebalancer.ts';
import type { RebalanceRequest, RebalanceResponse } from '#proto/gen/gantry/v1/operator.ts';
import { rebalanceDefaults } from '#proto/model/cluster.ts';
import { taskName } from '#proto/model/ids.ts';
import { findService } from './names.ts';
import { commitWish, type OperatorParts, wishContext } from './parts.ts';

/** Faults: `not-found`, `precondition` (the service is never moved), and those of a commit. */
export async function rebalance(parts: OperatorParts, request: RebalanceRequest): Promise<RebalanceResponse> {
  const { snapshot, now } = wishContext(parts);
  const only = request.service === '' ? undefined : findService(snapshot, request.service);
  const { moves, more } = planRebalance(snapshot, now, only);
  if (!request.dryRun && moves.length > 0) {
    const of = only && { of: only.id };
    await commitWish(parts, ({ snapshot, now }) => [
      {
        table: 'guard',
        key: rebalanceGuard,
        value: { name: rebalanceGuard, touchedAtMs: now, ...of },
        expect: snapshot.get('guard', rebalanceGuard)?.modRevision ?? 0,
      },
    ]);
  }
  return {
    moves: moves.map(({ taskId, fromName, toName, reason }) => {
      return { task: taskName(snapshot.task(taskId)!), taskId, from: fromName, to: toName, reason };
    }),
    perMinute: snapshot.cluster?.rebalancePerMinute || rebalanceDefaults.rebalancePerMinute,
    more,
  };
}
