/** Writes down what is true of the whole cluster at its very first start; later only where logs go may change. */
import type { Store } from '#control-plane/store/store.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';

/** What the operator asked for at this start. */
export interface Foundation {
  readonly network: string;
  readonly vipNetwork: string;
  readonly domain: string;
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
  const wanted: ClusterConfig = {
    id: found?.id ?? newId(random),
    network: found?.network ?? asked.network,
    vipNetwork: found?.vipNetwork ?? asked.vipNetwork,
    domain: found?.domain ?? asked.domain,
    network6: found?.network6 ?? '',
    encapsulation: found?.encapsulation ?? 'auto',
    encryption: found?.encryption ?? '',
    natsUrl: asked.nats || found?.natsUrl || '',
  };
  const { network, vipNetwork, domain } = wanted;
  if (network !== asked.network || vipNetwork !== asked.vipNetwork || domain !== asked.domain)
    log.warn('networks and domain stay as at the first start', { why: `${network}, ${vipNetwork}, ${domain}` });
  if (found && found.natsUrl === wanted.natsUrl) return;
  try {
    await store.seen(await store.commit([{ table: 'cluster', key: 'config', value: wanted, expect }]));
  } catch (error) {
    if (!isFault(error, 'conflict')) throw error;
  }
}
