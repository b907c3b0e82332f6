/** Writes down what is true of the whole cluster at its very first start; later only where logs go may change here, the rest by `gantry cluster set`. */
import { createHash } from 'node:crypto';
import { defaultTrashMs } from '#control-plane/reconcilers/trash.ts';
import type { Store } from '#control-plane/store/store.ts';
import { formatAddress6 } from '#net/plan/address6.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import {
  type ClusterConfig,
  defaultAgentAwayLimitMs,
  defaultFlapDampingMs,
  defaultOrphanAfterMs,
  rebalanceDefaults,
} from '#proto/model/cluster.ts';

/** What the operator asked for at this start. */
export interface Foundation {
  readonly network: string;
  readonly vipNetwork: string;
  readonly domain: string;
  /** These three empty: as it was, or as it is by default. */
  readonly network6?: string;
  readonly encapsulation?: '' | ClusterConfig['encapsulation'];
  readonly encryption?: ClusterConfig['encryption'];
  /** NATS; empty: as it was. */
  readonly nats: string;
}

/** Resolves when the snapshot has the record. Faults: those of a commit, but for another replica having been first. */
export async function foundCluster(
  store: Store,
  asked: Foundation,
  { random, log }: { readonly random: Random; readonly log: Log },
): Promise<void> {
  const record = store.snapshot.get('cluster', 'config');
  const { value: found, modRevision: expect = 0 } = record ?? {};
  const id = found?.id ?? newId(random);
  const wanted: ClusterConfig = {
    id,
    network: found?.network ?? asked.network,
    vipNetwork: found?.vipNetwork ?? asked.vipNetwork,
    domain: found?.domain ?? asked.domain,
    // Clusters of before have none.
    network6: found?.network6 || asked.network6 || ownNetwork6(id),
    encapsulation: found?.encapsulation ?? (asked.encapsulation || 'auto'),
    encryption: found?.encryption ?? asked.encryption ?? '',
    strategy: found?.strategy ?? 'spread',
    trashMs: found?.trashMs ?? defaultTrashMs,
    rebalancePerMinute: found?.rebalancePerMinute ?? rebalanceDefaults.rebalancePerMinute,
    rebalanceAtOnce: found?.rebalanceAtOnce ?? rebalanceDefaults.rebalanceAtOnce,
    incarnation: found?.incarnation ?? 0,
    restoredAtMs: found?.restoredAtMs ?? 0,
    orphanAfterMs: found?.orphanAfterMs ?? defaultOrphanAfterMs,
    flapDampingMs: found?.flapDampingMs ?? defaultFlapDampingMs,
    agentAwayLimitMs: found?.agentAwayLimitMs ?? defaultAgentAwayLimitMs,
    natsUrl: asked.nats || found?.natsUrl || '',
  };
  const stays = (['network', 'vipNetwork', 'network6', 'domain', 'encapsulation', 'encryption'] as const).filter(
    (key) => asked[key] && asked[key] !== wanted[key],
  );
  if (stays.length > 0)
    log.warn('settings of the cluster count at its first start only: see `gantry cluster set`', {
      why: stays.map((key) => `${key} stays ${wanted[key] || 'off'}, not ${asked[key]}`).join('; '),
    });
  if (found && JSON.stringify({ ...found, ...wanted }) === JSON.stringify(found)) return;
  try {
    await store.seen(await store.commit([{ table: 'cluster', key: 'config', value: wanted, expect }]));
  } catch (error) {
    if (!isFault(error, 'conflict')) throw error;
  }
}

/** Resolves when there is a cluster: of several managers the first one founds it, or restores it, and no other may be faster. */
export function founded(store: Store): Promise<void> {
  return new Promise((resolve) => {
    const unsubscribe = store.subscribe(look);
    function look(): void {
      if (!store.snapshot.cluster) return;
      unsubscribe();
      resolve();
    }
    look();
  });
}

/** A unique local /96 (RFC 4193) that no other cluster is likely to have: its 40 bits are made of the cluster's id. */
export function ownNetwork6(clusterId: string): string {
  const digest = createHash('sha256').update(`gantry network6 ${clusterId}`).digest();
  return `${formatAddress6([0xfd, ...digest.subarray(0, 5), ...Array<number>(10).fill(0)])}/96`;
}
