/** Which services use what their specs name: now, after a rollback, or as long as a task of an older revision runs. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Service, ServiceSpec, TaskTemplate } from '#proto/model/service.ts';
import { occupiesNode } from '#proto/model/task.ts';

/** What tasks of a template use, by whatever it is known. */
export type Uses = (template: TaskTemplate, mode: ServiceSpec['mode']) => readonly string[];

/** By what is used. One walk over the services, and over tasks only of those that used something else before. */
export function usersBy(snapshot: Snapshot, uses: Uses): ReadonlyMap<string, readonly Service[]> {
  const users = new Map<string, Service[]>();
  for (const service of snapshot.all('service')) {
    for (const key of usedBy(snapshot, service, uses)) {
      const known = users.get(key);
      if (known) known.push(service);
      else users.set(key, [service]);
    }
  }
  return users;
}

function usedBy(snapshot: Snapshot, service: Service, uses: Uses): ReadonlySet<string> {
  const { spec, previous } = service;
  const used = new Set(uses(spec.template, spec.mode));
  for (const key of previous ? uses(previous.template, previous.mode) : []) used.add(key);
  const others = [...snapshot.revisionsOfService(service.id)].filter(({ template }) =>
    uses(template, spec.mode).some((key) => !used.has(key)),
  );
  if (others.length === 0) return used;
  const live = new Set<number>();
  for (const task of snapshot.tasksOfService(service.id)) if (occupiesNode(task)) live.add(task.revision);
  for (const { number, template } of others)
    if (live.has(number)) for (const key of uses(template, spec.mode)) used.add(key);
  return used;
}
