/** Who is on which network: what keeps it from changing, and from going. */
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { ClusterNetwork, NetworkAttachment } from '#proto/model/network.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';

/** What a task is on: by its revision, which may not be its service's any more. */
export function networksOf(snapshot: Snapshot, task: Task): readonly NetworkAttachment[] {
  return snapshot.revisionOf(task.serviceId, task.revision)?.template.networks ?? [];
}

export function isOn(spec: ServiceSpec | undefined, network: string): boolean {
  return spec?.template.networks.some((attachment) => attachment.network === network) ?? false;
}

/** Tasks that hold a place on the network: it may not change under them. */
export function tasksOn(snapshot: Snapshot, network: string): Task[] {
  const tasks: Task[] = [];
  for (const task of snapshot.all('task'))
    if (occupiesNode(task) && networksOf(snapshot, task).some((one) => one.network === network)) tasks.push(task);
  return tasks;
}

/** Services that are on it, or still have tasks that are. */
export function servicesOn(snapshot: Snapshot, network: string): Service[] {
  const held = new Set(tasksOn(snapshot, network).map(({ serviceId }) => serviceId));
  const services: Service[] = [];
  for (const service of snapshot.all('service'))
    if (held.has(service.id) || (!service.removing && isOn(service.spec, network))) services.push(service);
  return services;
}

/**
 * Networks of Compose projects that no service is on any more, and none comes back to by a rollback: they go, as what nobody
 * asks for any longer. Those made by hand stay. `held`: so many would go but for tasks that are still there.
 */
export function unusedNetworks(snapshot: Snapshot): {
  readonly unused: readonly ClusterNetwork[];
  readonly held: number;
} {
  const unused = new Map<string, ClusterNetwork>();
  for (const network of snapshot.all('network'))
    if (network.spec.project !== '') unused.set(network.spec.name, network);
  const use = (attachments: readonly NetworkAttachment[] | undefined) => {
    for (const { network } of attachments ?? []) unused.delete(network);
  };
  for (const { spec, previous } of snapshot.all('service')) {
    if (unused.size === 0) break;
    use(spec.template.networks);
    use(previous?.template.networks);
  }
  const wanted = unused.size;
  if (wanted > 0) for (const task of snapshot.all('task')) if (occupiesNode(task)) use(networksOf(snapshot, task));
  return { unused: [...unused.values()], held: wanted - unused.size };
}

/** Those that are unused, gone: as changes that no new membership can slip past. */
export function reapNetworks(snapshot: Snapshot, guard: () => Change): Change[] {
  const changes: Change[] = unusedNetworks(snapshot).unused.map(({ spec: { name } }) => ({
    table: 'network',
    key: name,
    value: undefined,
    expect: snapshot.get('network', name)!.modRevision,
  }));
  return changes.length === 0 ? [] : [...changes, guard()];
}
