/** The cluster at one revision, with the indexes that deciders need. Reading is O(1) or proportional to the answer. */
import type { AuthorityState } from '#proto/model/authority.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import { contentKey, documentKey, type SealedContent } from '#proto/model/document.ts';
import { type NodeId, qualifiedName, type ServiceId, type TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Revision, Service, Version } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { type Trashed, trashKey } from '#proto/model/trash.ts';
import type { Applied, Table, Tables, Versioned } from './records.ts';

export interface Snapshot {
  readonly revision: number;
  get<T extends Table>(table: T, key: string): Versioned<Tables[T]> | undefined;
  /** Records of a table, in no promised order. */
  all<T extends Table>(table: T): Iterable<Tables[T]>;
  keys(table: Table): Iterable<string>;
  count(table: Table): number;
  service(id: ServiceId): Service | undefined;
  serviceNamed(project: string, name: string): Service | undefined;
  task(id: TaskId): Task | undefined;
  node(id: NodeId): Node | undefined;
  revisionOf(id: ServiceId, number: number): Revision | undefined;
  tasksOfService(id: ServiceId): Iterable<Task>;
  tasksOnNode(id: NodeId): Iterable<Task>;
  fencedNodes(): Iterable<Node>;
  /** Those that were down of late. */
  flappingNodes(): Iterable<Node>;
  wrongClockNodes(): Iterable<Node>;
  revisionsOfService(id: ServiceId): Iterable<Revision>;
  /** All that are kept, by the document's key; also of one whose record is gone. */
  contentsOfDocument(key: string): Iterable<SealedContent>;
  /** Services of the project whose spec depends on the one of that name. */
  dependentsOf(project: string, name: string): Iterable<Service>;
  /** The volume of that name is in the trash. */
  trashedVolume(name: string): Trashed | undefined;
  /** The service is in the trash; it may still be stopping. */
  trashedService(id: ServiceId): Trashed | undefined;
  versionOf(id: ServiceId, number: number): Version | undefined;
  versionsOfService(id: ServiceId): Iterable<Version>;
  readonly cluster: ClusterConfig | undefined;
  readonly authority: AuthorityState | undefined;
}

const none: readonly never[] = [];

/** The mutable snapshot behind a store; only the store that owns it may call `apply`. */
export class LiveSnapshot implements Snapshot {
  revision = 0;
  readonly #tables: { [T in Table]: Map<string, Versioned<Tables[T]>> } = {
    service: new Map(),
    revision: new Map(),
    version: new Map(),
    task: new Map(),
    node: new Map(),
    network: new Map(),
    volume: new Map(),
    token: new Map(),
    credential: new Map(),
    cluster: new Map(),
    guard: new Map(),
    document: new Map(),
    content: new Map(),
    trash: new Map(),
    authority: new Map(),
  };
  readonly #tasksOfService = new Map<string, Map<string, Task>>();
  readonly #tasksOnNode = new Map<string, Map<string, Task>>();
  readonly #fencedNodes = new Map<string, Node>();
  readonly #flappingNodes = new Map<string, Node>();
  readonly #wrongClockNodes = new Map<string, Node>();
  readonly #revisionsOfService = new Map<string, Map<string, Revision>>();
  readonly #contentsOfDocument = new Map<string, Map<string, SealedContent>>();
  readonly #trashedVolumes = new Map<string, Trashed>();
  readonly #trashedServices = new Map<ServiceId, Trashed>();
  readonly #versionsOfService = new Map<string, Map<string, Version>>();
  readonly #serviceByName = new Map<string, Service>();
  /** By qualified name of who is depended on. */
  readonly #dependentsOf = new Map<string, Map<string, Service>>();

  get<T extends Table>(table: T, key: string): Versioned<Tables[T]> | undefined {
    return this.#tables[table].get(key);
  }
  *all<T extends Table>(table: T): Iterable<Tables[T]> {
    for (const { value } of this.#tables[table].values()) yield value;
  }
  /** Keys of a table, for a resync that must find what has gone. */
  keys(table: Table): Iterable<string> {
    return this.#tables[table].keys();
  }
  count(table: Table): number {
    return this.#tables[table].size;
  }
  service(id: ServiceId): Service | undefined {
    return this.#tables.service.get(id)?.value;
  }
  serviceNamed(project: string, name: string): Service | undefined {
    return this.#serviceByName.get(qualifiedName(project, name));
  }
  task(id: TaskId): Task | undefined {
    return this.#tables.task.get(id)?.value;
  }
  node(id: NodeId): Node | undefined {
    return this.#tables.node.get(id)?.value;
  }
  revisionOf(id: ServiceId, number: number): Revision | undefined {
    return this.#tables.revision.get(revisionKey(id, number))?.value;
  }
  tasksOfService(id: ServiceId): Iterable<Task> {
    return this.#tasksOfService.get(id)?.values() ?? none;
  }
  tasksOnNode(id: NodeId): Iterable<Task> {
    return this.#tasksOnNode.get(id)?.values() ?? none;
  }
  fencedNodes(): Iterable<Node> {
    return this.#fencedNodes.values();
  }
  flappingNodes(): Iterable<Node> {
    return this.#flappingNodes.values();
  }
  wrongClockNodes(): Iterable<Node> {
    return this.#wrongClockNodes.values();
  }
  revisionsOfService(id: ServiceId): Iterable<Revision> {
    return this.#revisionsOfService.get(id)?.values() ?? none;
  }
  contentsOfDocument(key: string): Iterable<SealedContent> {
    return this.#contentsOfDocument.get(key)?.values() ?? none;
  }
  dependentsOf(project: string, name: string): Iterable<Service> {
    return this.#dependentsOf.get(qualifiedName(project, name))?.values() ?? none;
  }
  trashedVolume(name: string): Trashed | undefined {
    return this.#trashedVolumes.get(name);
  }
  trashedService(id: ServiceId): Trashed | undefined {
    return this.#trashedServices.get(id);
  }
  versionOf(id: ServiceId, number: number): Version | undefined {
    return this.#tables.version.get(revisionKey(id, number))?.value;
  }
  versionsOfService(id: ServiceId): Iterable<Version> {
    return this.#versionsOfService.get(id)?.values() ?? none;
  }
  get authority(): AuthorityState | undefined {
    return this.#tables.authority.get('ca')?.value;
  }
  get cluster(): ClusterConfig | undefined {
    return this.#tables.cluster.get('config')?.value;
  }

  /** Puts (or, with undefined, removes) one record; returns what changed, or undefined where nothing did. */
  apply<T extends Table>(
    table: T,
    key: string,
    value: Tables[T] | undefined,
    modRevision: number,
  ): Applied | undefined {
    const records = this.#tables[table] as Map<string, Versioned<Tables[T]>>;
    const before = records.get(key)?.value;
    if (value === undefined) {
      if (before === undefined) return undefined;
      records.delete(key);
    } else records.set(key, { value, modRevision });
    const applied = { table, key, before, after: value } as Applied;
    this.#index(applied);
    return applied;
  }

  #index(change: Applied): void {
    switch (change.table) {
      case 'task':
        move(this.#tasksOfService, change.key, change.before?.serviceId, change.after?.serviceId, change.after);
        move(
          this.#tasksOnNode,
          change.key,
          change.before?.nodeId || undefined,
          change.after?.nodeId || undefined,
          change.after,
        );
        break;
      case 'node':
        keep(this.#fencedNodes, change.key, change.after?.fenced ? change.after : undefined);
        keep(this.#flappingNodes, change.key, change.after?.flapping ? change.after : undefined);
        keep(this.#wrongClockNodes, change.key, change.after?.clock ? change.after : undefined);
        break;
      case 'revision':
        move(this.#revisionsOfService, change.key, change.before?.serviceId, change.after?.serviceId, change.after);
        break;
      case 'content':
        move(
          this.#contentsOfDocument,
          change.key,
          change.before && documentKey(change.before),
          change.after && documentKey(change.after),
          change.after,
        );
        break;
      case 'trash': {
        const { before, after } = change;
        if (before?.item.kind === 'volume') this.#trashedVolumes.delete(before.item.volume.name);
        if (after?.item.kind === 'volume') this.#trashedVolumes.set(after.item.volume.name, after);
        if (before?.item.kind === 'service' && before.item.was) this.#trashedServices.delete(before.item.was.id);
        if (after?.item.kind === 'service' && after.item.was) this.#trashedServices.set(after.item.was.id, after);
        break;
      }
      case 'version':
        move(this.#versionsOfService, change.key, change.before?.serviceId, change.after?.serviceId, change.after);
        break;
      case 'service':
        if (change.before)
          this.#serviceByName.delete(qualifiedName(change.before.spec.project, change.before.spec.name));
        if (change.after)
          this.#serviceByName.set(qualifiedName(change.after.spec.project, change.after.spec.name), change.after);
        for (const name of dependenciesOf(change.before))
          move(this.#dependentsOf, change.key, name, undefined, undefined);
        for (const name of dependenciesOf(change.after))
          move(this.#dependentsOf, change.key, undefined, name, change.after);
        break;
    }
  }
}

/** The key of a service's revision, or version, of that number. */
export function revisionKey(id: ServiceId, number: number): string {
  return `${id}/${number}`;
}

/** The key of any record. */
export function keyOf<T extends Table>(table: T, value: Tables[T]): string {
  switch (table) {
    case 'revision':
    case 'version': {
      const { serviceId, number } = value as Revision | Version;
      return revisionKey(serviceId, number);
    }
    case 'volume':
      return (value as Tables['volume']).name;
    case 'credential':
      return (value as Tables['credential']).registry;
    case 'network':
      return (value as Tables['network']).spec.name;
    case 'guard':
      return (value as Tables['guard']).name;
    case 'document':
      return documentKey(value as Tables['document']);
    case 'content':
      return contentKey(value as Tables['content']);
    case 'trash':
      return trashKey(value as Tables['trash']);
    case 'cluster':
      return 'config';
    case 'authority':
      return 'ca';
    default:
      return (value as { id: string }).id;
  }
}

function dependenciesOf(service: Service | undefined): readonly string[] {
  return service?.spec.dependsOn.map((dependency) => qualifiedName(service.spec.project, dependency.service)) ?? [];
}

function keep<V>(index: Map<string, V>, key: string, value: V | undefined): void {
  if (value === undefined) index.delete(key);
  else index.set(key, value);
}

function move<V>(
  index: Map<string, Map<string, V>>,
  key: string,
  from: string | undefined,
  to: string | undefined,
  value: V | undefined,
): void {
  if (from !== undefined && from !== to) {
    const group = index.get(from);
    group?.delete(key);
    if (group?.size === 0) index.delete(from);
  }
  if (to !== undefined && value !== undefined) {
    let group = index.get(to);
    if (!group) {
      group = new Map();
      index.set(to, group);
    }
    group.set(key, value);
  }
}
