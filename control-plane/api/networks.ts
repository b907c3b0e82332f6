/** Networks: made and removed by hand, listed with who is on them. */
import { NetworkWish, removeNetwork as removal } from '#control-plane/reconcilers/network-changes.ts';
import { networksOf } from '#control-plane/reconcilers/network-usage.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type {
  ChangeResponse,
  CreateNetworkRequest,
  NetworkMember,
  NetworkSummary,
  RemoveNetworkRequest,
} from '#proto/gen/gantry/v1/operator.ts';
import type { ClusterNetwork as WireNetwork } from '#proto/gen/gantry/v1/types.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import { networkSpecFromWire, toWire } from '#proto/model/wire.ts';
import { nameOfService } from './names.ts';
import { commitWish, type OperatorParts } from './parts.ts';

/** Faults: `exists`, `invalid`, `conflict` (a range is somebody's). */
export async function createNetwork(parts: OperatorParts, request: CreateNetworkRequest): Promise<WireNetwork> {
  if (!request.spec) throw new Fault('invalid', 'no network was described');
  const spec = { ...networkSpecFromWire(request.spec), project: '' };
  await commitWish(parts, (context) => {
    if (context.snapshot.get('network', spec.name))
      throw new Fault('exists', `network ${spec.name} is there already`, {
        remedy: `see gantry network inspect ${spec.name}`,
      });
    const wish = new NetworkWish(context);
    wish.apply(spec);
    return wish.changes;
  });
  return toWire<ClusterNetwork>(parts.store.snapshot.get('network', spec.name)!.value);
}

/** All or none. Faults: `not-found`, `conflict` (who is on it). */
export async function removeNetwork(parts: OperatorParts, { names }: RemoveNetworkRequest): Promise<ChangeResponse> {
  if (names.length === 0)
    throw new Fault('invalid', 'no network was named', { remedy: 'name one: see gantry network ls' });
  const wanted = [...new Set(names)];
  const revision = await commitWish(parts, (context) => {
    const changes = wanted.flatMap((name) => removal(context, name));
    // Each brings the guard; one is enough.
    return changes.filter(
      (change, index) => change.table !== 'guard' || changes.findIndex((one) => one.table === 'guard') === index,
    );
  });
  return { revision, serviceIds: [], names: wanted, message: `removed ${wanted.join(', ')}` };
}

export function networkSummaries(snapshot: Snapshot, project: string): NetworkSummary[] {
  return summariesOf(
    snapshot,
    [...snapshot.all('network')].filter(({ spec }) => project === '' || spec.project === project),
  );
}

/** Faults: `not-found`. */
export function findNetwork(snapshot: Snapshot, name: string): ClusterNetwork {
  const network = snapshot.get('network', name)?.value;
  if (network) return network;
  throw new Fault('not-found', `there is no network "${name}"`, { remedy: 'see gantry network ls' });
}

export function networkSummary(snapshot: Snapshot, network: ClusterNetwork): NetworkSummary {
  return summariesOf(snapshot, [network])[0]!;
}

/** By name. One walk over services and tasks, however many networks there are. */
function summariesOf(snapshot: Snapshot, networks: readonly ClusterNetwork[]): NetworkSummary[] {
  const services = new Map(networks.map(({ spec }) => [spec.name, new Set<string>()]));
  const members = new Map<string, NetworkMember[]>(networks.map(({ spec }) => [spec.name, []]));
  for (const service of snapshot.all('service')) {
    if (!service.removing)
      for (const { network } of service.spec.template.networks) services.get(network)?.add(nameOfService(service));
    for (const task of snapshot.tasksOfService(service.id)) {
      if (!occupiesNode(task)) continue;
      for (const { network } of networksOf(snapshot, task)) {
        services.get(network)?.add(nameOfService(service));
        members.get(network)?.push(memberOf(task, network));
      }
    }
  }
  return networks
    .map((network) => ({
      network: toWire<ClusterNetwork>(network),
      services: [...services.get(network.spec.name)!].sort(),
      members: members.get(network.spec.name)!.sort((a, b) => (a.task < b.task ? -1 : 1)),
    }))
    .sort((a, b) => ((a.network.spec?.name ?? '') < (b.network.spec?.name ?? '') ? -1 : 1));
}

function memberOf(task: Task, network: string): NetworkMember {
  return {
    task: qualifiedName(task.project, taskName(task)),
    taskId: task.id,
    node: task.nodeName,
    address: task.address,
    networkAddress: task.addresses.find((one) => one.network === network)?.address ?? '',
  };
}
