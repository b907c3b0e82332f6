/** Settings of the whole cluster. */
import { setCluster as decided } from '#control-plane/reconcilers/cluster-settings.ts';
import type { ClusterSettings, SetClusterRequest } from '#proto/gen/gantry/v1/operator.ts';
import { toWire } from '#proto/model/wire.ts';
import { commitWish, type OperatorParts } from './parts.ts';

/** Faults: `invalid`, `precondition`, and those of a commit. */
export async function setCluster(parts: OperatorParts, { settings }: SetClusterRequest): Promise<ClusterSettings> {
  let notes: readonly string[] = [];
  await commitWish(parts, (context) => {
    const decision = decided(context, settings);
    notes = decision.notes;
    return decision.changes;
  });
  const { cluster } = parts.store.snapshot;
  return { cluster: cluster && toWire(cluster), notes: [...notes] };
}
