/** How autoscaled services stand: their bounds, what they do beside what is aimed at, and why they have as many tasks. */
import { loadOf } from '#control-plane/controllers/service-load.ts';
import { scheduledRange } from '#control-plane/reconcilers/scheduled-range.ts';
import type { ScalingMeasure, ScalingRequest, ScalingResponse, ServiceScaling } from '#proto/gen/gantry/v1/operator.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type Autoscale, maySleep, replicasOf } from '#proto/model/autoscale.ts';
import { Zones } from '#proto/model/calendar.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import { findService } from './names.ts';
import type { OperatorParts } from './parts.ts';

export async function scaling(parts: OperatorParts, request: ScalingRequest): Promise<ScalingResponse> {
  const door = parts.leader();
  if (door) return door.scaling(request);
  const { snapshot } = parts.store;
  if (request.service !== '') {
    const service = findService(snapshot, request.service);
    const { autoscale, project, name } = service.spec;
    if (!autoscale)
      throw new Fault('precondition', `service ${qualifiedName(project, name)} is not autoscaled`, {
        remedy: 'say x-autoscale in its Compose file, and apply',
      });
    return { services: [scalingOf(parts, service, autoscale)] };
  }
  const services = [...snapshot.all('service')].flatMap((service) => {
    const { autoscale } = service.spec;
    return autoscale && !service.removing ? [scalingOf(parts, service, autoscale)] : [];
  });
  return { services: services.sort((a, b) => (a.name < b.name ? -1 : 1)) };
}

function scalingOf({ store, usage, clock }: OperatorParts, service: Service, spec: Autoscale): ServiceScaling {
  const times = { nowMs: clock.monotonic(), changedAtMs: 0, sinceMs: 0 };
  const load = loadOf(service, store.snapshot, usage, times);
  const { range } = scheduledRange(spec, new Zones(), clock.now());
  const ready = load.tasks.filter((task) => task.ready);
  const mean = (of: (task: (typeof ready)[number]) => number | undefined) => {
    const known = ready.flatMap((task) => of(task) ?? []);
    return known.length > 0 ? known.reduce((sum, one) => sum + one, 0) / known.length : undefined;
  };
  const replicas = replicasOf(service);
  const { requestsPerSecond } = load;
  const each = requestsPerSecond === undefined || replicas === 0 ? undefined : requestsPerSecond / replicas;
  const measures: ScalingMeasure[] = [
    { name: 'cpu', now: mean((task) => task.cpuPercent), target: spec.cpuPercent },
    { name: 'memory', now: mean((task) => task.memoryPercent), target: spec.memoryPercent },
    { name: 'requests', now: each, target: spec.requestsPerSecond },
  ];
  const sleeps = maySleep(spec);
  return {
    serviceId: service.id,
    name: qualifiedName(service.spec.project, service.spec.name),
    ...range,
    replicas,
    ready: ready.length,
    measures: measures.filter(({ target }) => target > 0),
    idleMs: sleeps ? spec.idleMs : 0,
    idleForMs: sleeps && usage.lastRequestAt(service.id) !== undefined ? Math.round(load.idleForMs) : 0,
    why: service.autoscaled?.why ?? 'as it began',
    atMs: service.autoscaled?.atMs ?? 0,
  };
}
