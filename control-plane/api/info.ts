/** The cluster as a whole: who leads it, and how its managers are. */
import type { InfoResponse, ManagerStatus } from '#proto/gen/gantry/v1/operator.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { toWire } from '#proto/model/wire.ts';
import type { OperatorParts } from './parts.ts';

/** Takes as long as the slowest manager to answer: a second at most. */
export async function info(parts: OperatorParts): Promise<InfoResponse> {
  const { store, authority, addresses, version, probe } = parts;
  const managers = await Promise.all(addresses.map((address) => statusOf(address, probe)));
  const { cluster, revision } = store.snapshot;
  return {
    clusterId: cluster?.id ?? '',
    version,
    leader: store.leadership?.replica ?? '',
    epoch: store.leadership?.epoch ?? 0,
    revision,
    cluster: cluster && toWire(cluster),
    caFingerprint: authority.hash,
    addresses: [...addresses],
    managers,
  };
}

async function statusOf(address: string, probe: OperatorParts['probe']): Promise<ManagerStatus> {
  try {
    return { address, state: (await probe(address)) === undefined ? 'follows' : 'leads' };
  } catch (error) {
    if (!isFault(error)) throw error;
    return { address, state: 'silent' };
  }
}
