/** What each node should hold, out of a snapshot, and which items one step of the snapshot changes. Pure. */
import {
  type AssignmentItem,
  type Backend,
  type Endpoint,
  type LinkedPort,
  type LinkedService,
  type Peer,
  segmentLabel,
} from '#proto/model/assignment.ts';
import { holdMsOf, isCounted } from '#proto/model/autoscale.ts';
import type { Credential } from '#proto/model/cluster.ts';
import type { Concealed } from '#proto/model/concealed.ts';
import type { SealedContent } from '#proto/model/document.ts';
import type { NodeId, ServiceId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service, TaskTemplate } from '#proto/model/service.ts';
import { isAbsent, isServing, occupiesNode, type Task } from '#proto/model/task.ts';
import type { Delta } from '../store/records.ts';
import type { Snapshot } from '../store/snapshot.ts';

/** What has to be sent because of some steps of the snapshot: names only, the items are read when they are sent. */
export interface Dirty {
  /** Task ids, by the node that holds (or held) them. */
  readonly tasks: Map<NodeId, Set<string>>;
  /** Services whose endpoint every node must hear of. */
  readonly endpoints: Set<ServiceId>;
  /** Nodes that all others must hear of. */
  readonly peers: Set<NodeId>;
  /** Networks, by name, that every node must hear of. */
  readonly networks: Set<string>;
  /** Networks that have IPv6 now, or no longer: their services' endpoints say so. */
  readonly ipv6: Set<string>;
  /** Registries whose login changed. */
  readonly credentials: Set<string>;
  /** Nodes whose own record changed in what their agent acts on, or has gone. */
  readonly records: Set<NodeId>;
  /** What is true of the whole cluster changed: every agent is told anew. */
  cluster: boolean;
}

export function nothingDirty(): Dirty {
  return {
    tasks: new Map(),
    endpoints: new Set(),
    peers: new Set(),
    networks: new Set(),
    ipv6: new Set(),
    credentials: new Set(),
    records: new Set(),
    cluster: false,
  };
}

/** Opens the passwords in credential records; the store holds them sealed. */
export type Unseal = (credential: Credential) => Credential;
/** Opens a content of a config or secret, which is sealed in the snapshot too. Faults: `corrupt`. */
export type OpenContent = (content: SealedContent) => Concealed;

/** What is a node's alone in its full set, in the order in which it is of use: logins before the tasks. */
export function ownItemsOf(snapshot: Snapshot, node: NodeId, unseal: Unseal): AssignmentItem[] {
  const items: AssignmentItem[] = [];
  const registries = new Set<string>();
  const tasks: AssignmentItem[] = [];
  for (const task of snapshot.tasksOnNode(node)) {
    const item = taskItem(snapshot, task);
    if (!item) continue;
    tasks.push(item);
    registries.add(registryOf(item.template.container.image));
  }
  for (const registry of registries) {
    const credential = credentialItem(snapshot, registry, unseal);
    if (credential) items.push(credential);
  }
  return items.concat(tasks);
}

/** Adds what `delta` makes stale to `dirty`; the agent's own words about a task are not sent back to it. */
export function mark(dirty: Dirty, delta: Delta): void {
  for (const change of delta.changes) {
    switch (change.table) {
      case 'task':
        markTask(dirty, change.before, change.after);
        break;
      case 'service':
        if (!sameEndpointSpec(change.before, change.after)) dirty.endpoints.add((change.after ?? change.before)!.id);
        break;
      case 'node': {
        const id = (change.after ?? change.before)!.id;
        if (!same(change.before && peerOf(change.before), change.after && peerOf(change.after))) dirty.peers.add(id);
        // Who is fenced is to say that it holds this revision of its record, whatever has changed in it.
        if (change.before && !(change.after && !change.after.fenced && sameRecord(change.before, change.after)))
          dirty.records.add(id);
        break;
      }
      case 'network':
        dirty.networks.add(change.key);
        if ((change.before?.spec.ipv6 ?? false) !== (change.after?.spec.ipv6 ?? false)) dirty.ipv6.add(change.key);
        break;
      case 'cluster':
        dirty.cluster ||= !same(change.before, change.after);
        break;
      case 'authority':
        dirty.cluster ||= !same(change.before?.roots, change.after?.roots);
        break;
      case 'credential':
        dirty.credentials.add(change.key);
        break;
    }
  }
}

function markTask(dirty: Dirty, before: Task | undefined, after: Task | undefined): void {
  const heldBefore = before && occupiesNode(before) ? before : undefined;
  const heldAfter = after && occupiesNode(after) ? after : undefined;
  if (heldBefore && heldBefore.nodeId !== heldAfter?.nodeId) add(dirty.tasks, heldBefore.nodeId as NodeId, before!.id);
  if (heldAfter && !(heldBefore && sameForAgent(heldBefore, heldAfter))) {
    add(dirty.tasks, heldAfter.nodeId as NodeId, heldAfter.id);
  }
  if (!same(before && backendOf(before), after && backendOf(after))) {
    dirty.endpoints.add((after ?? before)!.serviceId);
  }
}

/** The fields an agent acts on; the others are its own reports. */
function sameForAgent(a: Task, b: Task): boolean {
  return (
    a.nodeId === b.nodeId &&
    a.wanted === b.wanted &&
    a.startAfterMs === b.startAfterMs &&
    a.address === b.address &&
    same(a.addresses, b.addresses) &&
    a.revision === b.revision
  );
}

function sameRecord(a: Node, b: Node): boolean {
  return (
    a.subnet === b.subnet &&
    a.fenced === b.fenced &&
    a.address === b.address &&
    a.name === b.name &&
    a.link === b.link &&
    a.address6 === b.address6 &&
    a.labels[segmentLabel] === b.labels[segmentLabel]
  );
}

function sameEndpointSpec(a: Service | undefined, b: Service | undefined): boolean {
  if (!a || !b) return a === b;
  return (
    a.vip === b.vip &&
    a.spec.endpointMode === b.spec.endpointMode &&
    a.spec.name === b.spec.name &&
    a.spec.project === b.spec.project &&
    same(a.spec.ports, b.spec.ports) &&
    same(a.spec.aliases, b.spec.aliases) &&
    same(a.spec.template.networks, b.spec.template.networks) &&
    same(a.spec.allowFrom, b.spec.allowFrom) &&
    a.spec.sticky === b.spec.sticky &&
    (a.spec.autoscale === undefined) === (b.spec.autoscale === undefined) &&
    isCounted(a.spec) === isCounted(b.spec) &&
    holdMsOf(a.spec) === holdMsOf(b.spec)
  );
}

function add<K, V>(sets: Map<K, Set<V>>, key: K, value: V): void {
  const set = sets.get(key);
  if (set) set.add(value);
  else sets.set(key, new Set([value]));
}

function same(a: unknown, b: unknown): boolean {
  return a === b || JSON.stringify(a) === JSON.stringify(b);
}

/** The task as its node gets it; undefined where the node has nothing to do for it any more. */
export function taskItem(
  snapshot: Snapshot,
  task: Task | undefined,
): Extract<AssignmentItem, { kind: 'task' }> | undefined {
  if (!task || !occupiesNode(task)) return undefined;
  const revision = snapshot.revisionOf(task.serviceId, task.revision);
  if (!revision) return undefined;
  const { template } = revision;
  const imageDigest = task.imageDigest || revision.imageDigest;
  // Its ports are those of the task before it as long as that one has its seat.
  const asTold = task.wanted === 'ready' ? { ...task, hostPorts: [] } : task;
  return { kind: 'task', task: asTold, template, imageDigest, links: linksOf(snapshot, task.project, template) };
}

/** Of the linked services that are there now: as with Docker's links, the task keeps what it was begun with. */
function linksOf(snapshot: Snapshot, project: string, { container }: TaskTemplate): readonly LinkedService[] {
  return container.links.flatMap(({ service: name, alias }) => {
    const service = snapshot.serviceNamed(project, name);
    if (!service || service.removing) return [];
    const { spec, vip } = service;
    const { image, env, expose } = spec.template.container;
    const ports: LinkedPort[] = [
      ...spec.ports.map(({ target, protocol }) => ({ number: target, protocol })),
      ...expose.map((number) => ({ number, protocol: 'tcp' as const })),
    ];
    const imageDigest = snapshot.revisionOf(service.id, service.revision)?.imageDigest ?? '';
    return [{ alias, service: name, vip: spec.endpointMode === 'vip' ? vip : '', ports, env, image, imageDigest }];
  });
}

/** A service as every node's network sees it. Backends in the order of their slots, so that equal endpoints are equal bytes. */
export function endpointOf(snapshot: Snapshot, service: Service): Endpoint {
  const backends: Backend[] = [];
  for (const task of snapshot.tasksOfService(service.id)) {
    const backend = backendOf(task);
    if (backend) backends.push(backend);
  }
  backends.sort((a, b) => a.slot - b.slot || (a.taskId < b.taskId ? -1 : 1));
  return {
    serviceId: service.id,
    project: service.spec.project,
    name: service.spec.name,
    aliases: service.spec.aliases,
    mode: service.spec.endpointMode,
    vip: service.vip,
    networks: service.spec.template.networks.map(({ network, aliases }) => ({ network, aliases })),
    allowFrom: service.spec.allowFrom,
    sticky: service.spec.sticky,
    ipv6: service.spec.template.networks.some(({ network }) => snapshot.get('network', network)?.value.spec.ipv6),
    counted: isCounted(service.spec),
    holdMs: holdMsOf(service.spec),
    measured: service.spec.autoscale !== undefined,
    ports: service.spec.ports,
    backends,
  };
}

/** Services that are on one of these networks. */
export function servicesOnAny(snapshot: Snapshot, networks: ReadonlySet<string>): ServiceId[] {
  if (networks.size === 0) return [];
  const ids: ServiceId[] = [];
  for (const { id, spec } of snapshot.all('service'))
    if (spec.template.networks.some(({ network }) => networks.has(network))) ids.push(id);
  return ids;
}

/** Only what runs can be reached; what is still starting, or has ended, is nobody's backend. */
function backendOf(task: Task): Backend | undefined {
  if (task.state !== 'running' || isAbsent(task) || task.address === '' || task.nodeId === '') return undefined;
  return {
    taskId: task.id,
    slot: task.slot,
    address: task.address,
    addresses: task.addresses,
    nodeId: task.nodeId,
    nodeName: task.nodeName,
    serving: isServing(task),
  };
}

/** A node as the others route to it; undefined until it has an address and a subnet. */
export function peerOf(node: Node): Peer | undefined {
  if (node.address === '' || node.subnet === '') return undefined;
  const { id, name, address, subnet, link, address6, wireguardKey, labels } = node;
  return { nodeId: id, name, address, subnet, link, address6, wireguardKey, segment: labels[segmentLabel] ?? '' };
}

/** The login of a registry, opened for the wire. */
export function credentialItem(
  snapshot: Snapshot,
  registry: string,
  unseal: Unseal,
): Extract<AssignmentItem, { kind: 'credential' }> | undefined {
  const credential = snapshot.get('credential', registry)?.value;
  return credential && { kind: 'credential', ...unseal(credential) };
}

/** The registry that an image reference names, by Docker's rule: a first part with a dot, a port, or `localhost`; else docker.io. */
export function registryOf(image: string): string {
  const slash = image.indexOf('/');
  const first = slash < 0 ? '' : image.slice(0, slash);
  return first === 'localhost' || /[.:]/.test(first) ? first : 'docker.io';
}

/** Registries of the images of a node's tasks. */
export function registriesOf(snapshot: Snapshot, node: NodeId): Set<string> {
  const registries = new Set<string>();
  for (const task of snapshot.tasksOnNode(node)) {
    const item = taskItem(snapshot, task);
    if (item) registries.add(registryOf(item.template.container.image));
  }
  return registries;
}
