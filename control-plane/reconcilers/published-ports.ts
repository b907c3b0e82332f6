/** Who has a port of the nodes: one service, for two could not be told apart. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { isPerNode } from '#proto/model/job.ts';
import type { Port, Service, ServiceSpec } from '#proto/model/service.ts';

/** The service that has a port on nodes where this one wants it; two host ports may share it on different nodes, where neither is on all. */
export function portOwner(
  snapshot: Snapshot,
  spec: ServiceSpec,
  wanted: Port,
  gone: ReadonlySet<Service> = new Set(),
): Service | undefined {
  if (wanted.published === 0) return undefined;
  for (const service of snapshot.all('service')) {
    const isSelf = service.spec.name === spec.name && service.spec.project === spec.project;
    if (isSelf || gone.has(service) || service.removing) continue;
    for (const port of service.spec.ports)
      if (
        port.published === wanted.published &&
        port.protocol === wanted.protocol &&
        (port.mode === 'ingress' || wanted.mode === 'ingress' || isPerNode(service.spec) || isPerNode(spec))
      )
        return service;
  }
  return undefined;
}
