/** What FROM and TO of `gantry net` mean. Pure: names are read against one snapshot. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { tryAddress } from '#net/plan/cidr.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { qualifiedName, taskName } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Port, Service, TaskTemplate } from '#proto/model/service.ts';
import { isActive, type Task } from '#proto/model/task.ts';
import { findAny, nameOfService } from './names.ts';

export type Place =
  | { readonly kind: 'task'; readonly task: Task; readonly port: number }
  | { readonly kind: 'service'; readonly service: Service; readonly port: number }
  | { readonly kind: 'node'; readonly node: Node; readonly port: number }
  /** A port that a service publishes; on `node`, where it was named. */
  | { readonly kind: 'published'; readonly service: Service; readonly port: Port; readonly node: Node | undefined }
  | { readonly kind: 'address'; readonly address: string; readonly port: number }
  | { readonly kind: 'outside' };

/** `outside`, `:8080`, `h2`, `h2:8080`, `web`, `web:80`, `web.1`, `shop/web.1:80`, `192.0.2.1:443`. Faults: `not-found`, `invalid`. */
export function placeOf(snapshot: Snapshot, text: string): Place {
  if (text === 'outside') return { kind: 'outside' };
  const [, name = text, digits = ''] = /^(.*?):(\d+)(?:\/tcp)?$/.exec(text) ?? [];
  const port = Number(digits);
  if (port > 65_535) throw new Fault('invalid', `"${text}": ${port} is no port`);
  if (name === '') return publishedPlace(snapshot, port, undefined);
  if (tryAddress(name) !== undefined) return { kind: 'address', address: name, port };
  const found = findAny(snapshot, name);
  if ('node' in found) {
    return port === 0 ? { kind: 'node', node: found.node, port } : publishedPlace(snapshot, port, found.node);
  }
  return 'task' in found ? { kind: 'task', task: found.task, port } : { kind: 'service', service: found.service, port };
}

function publishedPlace(snapshot: Snapshot, number: number, node: Node | undefined): Place {
  for (const service of snapshot.all('service')) {
    const port = service.spec.ports.find((one) => one.published === number);
    if (port) return { kind: 'published', service, port, node };
  }
  const all = [...snapshot.all('service')].flatMap(({ spec }) => spec.ports.map(({ published }) => published));
  const known = [...new Set(all)].filter((one) => one > 0).sort((a, b) => a - b);
  throw new Fault('not-found', `no service publishes port ${number}`, {
    remedy:
      known.length > 0
        ? `published are ${known.slice(0, 20).join(', ')}`
        : 'publish one with ports: in the Compose file',
  });
}

/** As people write it. */
export function nameOfPlace(place: Place): string {
  const at = (port: number) => (port === 0 ? '' : `:${port}`);
  switch (place.kind) {
    case 'task':
      return `${nameOfTask(place.task)}${at(place.port)}`;
    case 'service':
      return `${nameOfService(place.service)}${at(place.port)}`;
    case 'node':
      return place.node.name;
    case 'published':
      return `${place.node?.name ?? ''}:${place.port.published} (${nameOfService(place.service)})`;
    case 'address':
      return `${place.address}${at(place.port)}`;
    case 'outside':
      return 'outside';
  }
}

export function nameOfTask(task: Task): string {
  return qualifiedName(task.project, taskName(task));
}

/** Tasks that hold a seat of the service, those that run first, in the order of their slots. */
export function tasksOf(snapshot: Snapshot, service: Service): Task[] {
  const rank = (task: Task) => (task.state === 'running' ? 0 : 1);
  return [...snapshot.tasksOfService(service.id)]
    .filter(isActive)
    .sort((a, b) => rank(a) - rank(b) || a.slot - b.slot || (a.nodeName < b.nodeName ? -1 : 1));
}

export function templateOf(snapshot: Snapshot, task: Task): TaskTemplate | undefined {
  return (
    snapshot.revisionOf(task.serviceId, task.revision)?.template ?? snapshot.service(task.serviceId)?.spec.template
  );
}
