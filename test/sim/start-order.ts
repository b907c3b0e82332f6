/** Services that wait for each other, in the simulator: what must hold of their order, and who waits for what will not come. */
import { mayStart } from '#control-plane/reconcilers/start-order.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { assert } from '#proto/kernel/errors.ts';
import { type ServiceId, taskName } from '#proto/model/ids.ts';
import type { DependencyCondition } from '#proto/model/order.ts';
import type { Service } from '#proto/model/service.ts';
import type { Invariant } from './invariants.ts';

/** A commit that was decided when a dependency held may be late. */
const orderGraceMs = 10_000;

export function orderIsKept(): Invariant {
  /** By dependency: since when it does not hold any more, after it had; undefined: it holds. */
  const lostAtMs = new Map<string, number | undefined>();
  const note = (truth: Snapshot, id: ServiceId, now: number) => {
    const service = truth.service(id);
    for (const condition of ['service_started', 'service_healthy'] as const) {
      const key = `${id} ${condition}`;
      if (service && conditionHolds(truth, service, condition)) lostAtMs.set(key, undefined);
      else if (lostAtMs.has(key)) lostAtMs.set(key, lostAtMs.get(key) ?? now);
    }
  };
  const held = (id: ServiceId, condition: string, now: number) => {
    const key = `${id} ${condition}`;
    return lostAtMs.has(key) && (lostAtMs.get(key) ?? now) > now - orderGraceMs;
  };
  return {
    name: 'no service begins before those that it depends on',
    step({ changes }, { truth, clock }) {
      const now = clock.monotonic();
      const touched = new Set<ServiceId>();
      for (const change of changes)
        if (change.table === 'task') touched.add((change.after ?? change.before)!.serviceId);
        else if (change.table === 'service') touched.add((change.after ?? change.before)!.id);
      for (const id of touched) note(truth, id, now);
      for (const change of changes) {
        if (change.table !== 'task' || !change.after?.nodeId || change.before?.nodeId) continue;
        const { after } = change;
        const service = truth.service(after.serviceId);
        const siblings = [...truth.tasksOfService(after.serviceId)].filter(({ id }) => id !== after.id);
        if (!service || siblings.some(({ revision, nodeId }) => nodeId !== '' && revision === after.revision)) continue;
        for (const { service: name, condition, required } of service.spec.dependsOn) {
          const dependency = truth.serviceNamed(service.spec.project, name);
          if (!required || !dependency || dependency.removing) continue;
          assert(held(dependency.id, condition, now), `${taskName(after)} began before ${name}: ${condition}`);
        }
      }
    },
  };
}

/** In so many words: every replica, or at least one task of a global service. */
function conditionHolds(truth: Snapshot, { id, spec, revision }: Service, condition: DependencyCondition): boolean {
  const slots = new Set<string>();
  for (const task of truth.tasksOfService(id)) {
    if (task.revision !== revision) continue;
    const good = condition === 'service_healthy' ? task.health === 'healthy' : task.startedAtMs > 0;
    if (good) slots.add(spec.mode === 'global' ? task.nodeName : String(task.slot));
  }
  return slots.size >= (spec.mode === 'global' ? 1 : spec.replicas);
}

/** It waits for what will not come: nobody can help that but the operator. */
export function waitsInVain(truth: Snapshot, service: Service): boolean {
  const standing = mayStart(truth, service, truth.tasksOfService(service.id), 0);
  if (standing.at !== 'waits') return standing.at === 'failed';
  const isAtGate = (name: string) => truth.serviceNamed(service.spec.project, name)?.rollout.state === 'held';
  if (service.spec.dependsOn.some((dependency) => isAtGate(dependency.service))) return true;
  return service.spec.dependsOn.some(({ service: name }) => {
    const dependency = truth.serviceNamed(service.spec.project, name);
    return dependency !== undefined && waitsInVain(truth, dependency);
  });
}
