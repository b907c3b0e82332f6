/** What each node has given away: kept by every change of a task, never counted anew, so that placing is O(1) per task. */

import type { Delta } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { prefixOf } from '#net/plan/cidr.ts';
import { type NodeId, qualifiedName, type ServiceId, type TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { GenericResource } from '#proto/model/resources.ts';
import type { Port, Service } from '#proto/model/service.ts';
import { isActive, isWanted, occupiesNode, type Task, waitsForSeat } from '#proto/model/task.ts';
import type { Volume } from '#proto/model/volume.ts';
import { besideForerunner } from './beside.ts';
import { type Attribute, attributeOf, parseScope } from './constraint.ts';

/** One node and what its tasks hold of it. Only the ledger writes to it. */
export interface Usage {
  readonly node: Node;
  /** Its place among all nodes by name: the last tie-break. */
  readonly order: number;
  /** Addresses its subnet has for tasks; 0 before it has a subnet. */
  readonly addresses: number;
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly pids: number;
  /** Tasks that occupy it. */
  readonly tasks: number;
  /** Those of them that hold a seat: the others are stopping. */
  readonly active: number;
  /** Host ports taken, as `portKey`, with the number of holders. */
  readonly hostPorts: ReadonlyMap<string, number>;
  /** By kind. */
  readonly generic: ReadonlyMap<string, GenericUsage>;
  /** What the tasks that hold seats have, by priority. */
  readonly byPriority: ReadonlyMap<number, ClassUsage>;
}

/** What tasks of one priority hold. */
export interface ClassUsage {
  readonly cpuMillis: number;
  readonly memoryBytes: number;
  readonly pids: number;
  readonly tasks: number;
}

/** What of one kind a node has given away. */
export interface GenericUsage {
  readonly count: number;
  /** With the number of holders. */
  readonly names: ReadonlyMap<string, number>;
}

/** A service whose tasks must be apart from those of another one. */
export interface Avoider {
  readonly service: ServiceId;
  readonly serviceName: string;
  readonly attribute: Attribute;
}

/** Tasks of one service on one node. */
export interface ServiceUsage {
  /** Holding a seat: what spreading counts. */
  readonly active: number;
  /** With those that are stopping. */
  readonly occupying: number;
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
interface GenericAccount {
  count: number;
  readonly names: Map<string, number>;
}
type Account = Mutable<Omit<Usage, 'hostPorts' | 'generic' | 'byPriority'>> & {
  readonly hostPorts: Map<string, number>;
  readonly generic: Map<string, GenericAccount>;
  readonly byPriority: Map<number, Mutable<ClassUsage>>;
};
/** Tasks of a service by the value of an attribute of their nodes. */
interface Domains {
  readonly attribute: Attribute;
  readonly counts: Map<string, Mutable<ServiceUsage>>;
}

export const noServiceUsage: ServiceUsage = { active: 0, occupying: 0 };
const nobody: ReadonlyMap<NodeId, ServiceUsage> = new Map();
const noAvoiders: readonly Avoider[] = [];

export function portKey(port: Port): string {
  return `${port.published}/${port.protocol}`;
}

export class Ledger {
  /** Rises with every change of a node: what was worked out about nodes alone is stale then. */
  generation = 0;
  /** Of services that name none. */
  strategy: 'spread' | 'binpack' = 'spread';
  readonly #accounts = new Map<NodeId, Account>();
  /** Nodes that tasks name and whose record is not there. */
  readonly #ghosts = new Map<NodeId, Account>();
  readonly #tasks = new Map<TaskId, Task>();
  /** Tasks that are prepared beside the one whose room they get, by that one. */
  readonly #heirs = new Map<TaskId, Set<TaskId>>();
  /** Pending tasks that are counted as if they were where a place is kept for them. */
  readonly #claims = new Set<TaskId>();
  /** Of services that have one. */
  readonly #priorities = new Map<ServiceId, number>();
  readonly #services = new Map<ServiceId, Map<NodeId, Mutable<ServiceUsage>>>();
  /** What has been asked of `domainsOf` since a node last changed; kept by every task. */
  readonly #domains = new Map<ServiceId, Domains[]>();
  readonly #serviceIds = new Map<string, ServiceId>();
  /** By the `project/name` that they avoid. */
  readonly #avoiders = new Map<string, Avoider[]>();
  readonly #volumes = new Map<string, Volume>();
  #sorted: Account[] | undefined;

  static of(snapshot: Snapshot): Ledger {
    const ledger = new Ledger();
    ledger.strategy = snapshot.cluster?.strategy ?? 'spread';
    for (const service of snapshot.all('service')) ledger.setService(undefined, service);
    for (const node of snapshot.all('node')) ledger.setNode(node.id, node);
    for (const task of snapshot.all('task')) ledger.setTask(task.id, task);
    for (const volume of snapshot.all('volume')) ledger.setVolume(volume.name, volume);
    return ledger;
  }

  apply(delta: Delta): void {
    for (const change of delta.changes) {
      if (change.table === 'task') this.setTask(change.key as TaskId, change.after);
      else if (change.table === 'node') this.setNode(change.key as NodeId, change.after);
      else if (change.table === 'volume') this.setVolume(change.key, change.after);
      else if (change.table === 'service') this.setService(change.before, change.after);
      else if (change.table === 'cluster') this.strategy = change.after?.strategy ?? 'spread';
    }
  }

  /** The node as it is now; undefined: it is gone. */
  setNode(id: NodeId, node: Node | undefined): void {
    this.generation++;
    this.#sorted = undefined;
    this.#domains.clear();
    const account = this.#accounts.get(id) ?? this.#ghosts.get(id);
    if (!node) {
      this.#accounts.delete(id);
      if (account && account.tasks > 0) this.#ghosts.set(id, account);
      return;
    }
    this.#ghosts.delete(id);
    const addresses = node.subnet === '' ? 0 : 2 ** (32 - prefixOf(node.subnet)) - 3;
    if (account) Object.assign(account, { node, addresses });
    this.#accounts.set(id, account ?? emptyAccount(node, addresses));
  }

  /** The task as it is now, or as it is about to be; undefined: it is gone. Saying the same twice changes nothing. */
  setTask(id: TaskId, task: Task | undefined): void {
    if (this.#claims.has(id)) {
      if (task && task.nodeId === '' && isActive(task)) return;
      this.#claims.delete(id);
    }
    const before = this.#tasks.get(id);
    if (before === task) return;
    const heirs = [...(this.#heirs.get(id) ?? [])].map((heir) => this.#tasks.get(heir)!);
    for (const heir of heirs) this.#count(heir, -1);
    if (before) {
      this.#count(before, -1);
      this.#tasks.delete(id);
      this.#setHeir(before, false);
    }
    if (task && occupiesNode(task)) {
      this.#tasks.set(id, task);
      this.#setHeir(task, true);
      this.#count(task, 1);
    }
    for (const heir of heirs) this.#count(heir, 1);
  }

  #setHeir(task: Task, isOne: boolean): void {
    const of = task.successorOf;
    if (of === '' || !waitsForSeat(task)) return;
    const heirs = this.#heirs.get(of) ?? new Set();
    if (isOne) heirs.add(task.id);
    else heirs.delete(task.id);
    if (heirs.size > 0) this.#heirs.set(of, heirs);
    else this.#heirs.delete(of);
  }

  /** What it holds of its node, given who else is there. */
  #held(task: Task, gone?: ReadonlySet<TaskId>): Task {
    return besideForerunner(task, (id) => (gone?.has(id) ? undefined : this.#tasks.get(id)));
  }

  /** Counts a pending task as if it were on the node it names, until it is somewhere, or is not wanted any more. */
  claim(task: Task): void {
    this.setTask(task.id, task);
    this.#claims.add(task.id);
  }

  release(id: TaskId): void {
    if (this.#claims.delete(id)) this.setTask(id, undefined);
  }

  isClaimed(id: TaskId): boolean {
    return this.#claims.has(id);
  }

  /** The usage of a node as it will be when these of its tasks have gone. */
  without(usage: Usage, tasks: readonly Task[]): Usage {
    const account: Account = {
      ...usage,
      hostPorts: new Map(usage.hostPorts),
      generic: new Map([...usage.generic].map(([kind, { count, names }]) => [kind, { count, names: new Map(names) }])),
      byPriority: new Map(),
    };
    const gone = new Set(tasks.map(({ id }) => id));
    const heirs = tasks.flatMap(({ id }) => [...(this.#heirs.get(id) ?? [])]).filter((id) => !gone.has(id));
    const here = (id: TaskId) => this.#tasks.get(id) ?? [];
    const stay = heirs.flatMap(here).filter(({ nodeId }) => nodeId === usage.node.id);
    for (const task of [...[...gone].flatMap(here), ...stay]) countIn(account, this.#held(task), -1);
    for (const task of stay) countIn(account, this.#held(task, gone), 1);
    return account;
  }

  priorityOf(service: ServiceId): number {
    return this.#priorities.get(service) ?? 0;
  }

  /** A service before and after a change; undefined: it is not there. */
  setService(before: Service | undefined, after: Service | undefined): void {
    if (before) {
      this.#serviceIds.delete(nameOf(before));
      for (const { service } of before.spec.placement.affinities) {
        const left = this.#avoiders.get(service)?.filter((avoider) => avoider.service !== before.id);
        if (left?.length) this.#avoiders.set(service, left);
        else this.#avoiders.delete(service);
      }
    }
    this.#setPriority((after ?? before)!.id, after?.spec.priority ?? 0);
    if (!after) return;
    this.#serviceIds.set(nameOf(after), after.id);
    for (const { service, scope, apart, preferred } of after.spec.placement.affinities) {
      if (!apart || preferred) continue;
      const avoider = { service: after.id, serviceName: nameOf(after), attribute: parseScope(scope) };
      this.#avoiders.set(service, [...(this.#avoiders.get(service) ?? []), avoider]);
    }
  }

  /** Where the volume is, or is about to be; undefined: nowhere. */
  setVolume(name: string, volume: Volume | undefined): void {
    if (volume) this.#volumes.set(name, volume);
    else this.#volumes.delete(name);
  }

  volume(name: string): Volume | undefined {
    return this.#volumes.get(name);
  }

  /** All nodes, by name. */
  nodes(): readonly Usage[] {
    if (!this.#sorted) {
      this.#sorted = [...this.#accounts.values()].sort(byName);
      this.#sorted.forEach((account, order) => {
        account.order = order;
      });
    }
    return this.#sorted;
  }

  usageOf(id: NodeId): Usage | undefined {
    return this.#accounts.get(id);
  }

  /** Where the service's tasks are. */
  nodesOf(service: ServiceId): ReadonlyMap<NodeId, ServiceUsage> {
    return this.#services.get(service) ?? nobody;
  }

  serviceOn(service: ServiceId, node: NodeId): ServiceUsage {
    return this.#services.get(service)?.get(node) ?? noServiceUsage;
  }

  serviceNamed(name: string): ServiceId | undefined {
    return this.#serviceIds.get(name);
  }

  /** Those whose tasks must be apart from those of the service `project/name`. */
  avoidersOf(name: string): readonly Avoider[] {
    return this.#avoiders.get(name) ?? noAvoiders;
  }

  /** The service's tasks by the value of an attribute of their nodes. */
  domainsOf(service: ServiceId, attribute: Attribute): ReadonlyMap<string, ServiceUsage> {
    if (attribute.of === 'id') return this.nodesOf(service);
    const asked = this.#domains.get(service) ?? [];
    let domains = asked.find((one) => one.attribute.of === attribute.of && one.attribute.label === attribute.label);
    if (!domains) {
      domains = { attribute, counts: new Map() };
      for (const [id, usage] of this.nodesOf(service)) {
        const account = this.#accounts.get(id);
        if (account) countDomain(domains, account.node, usage.active, usage.occupying);
      }
      this.#domains.set(service, [...asked, domains]);
    }
    return domains.counts;
  }

  #count(task: Task, by: 1 | -1): void {
    const id = task.nodeId as NodeId;
    let account = this.#accounts.get(id) ?? this.#ghosts.get(id);
    if (!account) {
      account = emptyAccount({ id } as Node, 0);
      this.#ghosts.set(id, account);
    }
    const held = this.#held(task);
    countIn(account, held, by);
    if (isWanted(task)) countClass(account, held, this.priorityOf(task.serviceId), by);
    if (account.tasks === 0) this.#ghosts.delete(id);
    this.#countService(task, id, by);
  }

  /** Rare, and tasks of a service are not kept by service: all are looked through. */
  #setPriority(id: ServiceId, priority: number): void {
    const before = this.priorityOf(id);
    if (before === priority) return;
    if (priority === 0) this.#priorities.delete(id);
    else this.#priorities.set(id, priority);
    if (!this.#services.has(id)) return;
    for (const task of this.#tasks.values()) {
      if (task.serviceId !== id || !isWanted(task)) continue;
      const account = this.#accounts.get(task.nodeId as NodeId) ?? this.#ghosts.get(task.nodeId as NodeId)!;
      countClass(account, this.#held(task), before, -1);
      countClass(account, this.#held(task), priority, 1);
    }
  }

  #countService(task: Task, node: NodeId, by: 1 | -1): void {
    let nodes = this.#services.get(task.serviceId);
    if (!nodes) {
      nodes = new Map();
      this.#services.set(task.serviceId, nodes);
    }
    let usage = nodes.get(node);
    if (!usage) {
      usage = { active: 0, occupying: 0 };
      nodes.set(node, usage);
    }
    const active = isActive(task) ? by : 0;
    usage.occupying += by;
    usage.active += active;
    const account = this.#domains.size > 0 ? this.#accounts.get(node) : undefined;
    if (account)
      for (const asked of this.#domains.get(task.serviceId) ?? []) countDomain(asked, account.node, active, by);
    if (usage.occupying > 0) return;
    nodes.delete(node);
    if (nodes.size === 0) this.#services.delete(task.serviceId);
  }
}

function emptyAccount(node: Node, addresses: number): Account {
  return {
    node,
    order: 0,
    addresses,
    cpuMillis: 0,
    memoryBytes: 0,
    pids: 0,
    tasks: 0,
    active: 0,
    hostPorts: new Map(),
    generic: new Map(),
    byPriority: new Map(),
  };
}

function countIn(account: Account, task: Task, by: 1 | -1): void {
  account.cpuMillis += by * task.reservations.cpuMillis;
  account.memoryBytes += by * task.reservations.memoryBytes;
  account.pids += by * task.reservations.pids;
  account.tasks += by;
  if (isActive(task)) account.active += by;
  for (const port of task.hostPorts) {
    const key = portKey(port);
    const holders = (account.hostPorts.get(key) ?? 0) + by;
    if (holders > 0) account.hostPorts.set(key, holders);
    else account.hostPorts.delete(key);
  }
  for (const held of task.generic) countGeneric(account.generic, held, by);
}

function countClass({ byPriority }: Account, { reservations }: Task, priority: number, by: 1 | -1): void {
  const held = byPriority.get(priority) ?? { cpuMillis: 0, memoryBytes: 0, pids: 0, tasks: 0 };
  held.cpuMillis += by * reservations.cpuMillis;
  held.memoryBytes += by * reservations.memoryBytes;
  held.pids += by * reservations.pids;
  held.tasks += by;
  if (held.tasks > 0) byPriority.set(priority, held);
  else byPriority.delete(priority);
}

function countGeneric(kinds: Map<string, GenericAccount>, { kind, count, names }: GenericResource, by: 1 | -1): void {
  const account = kinds.get(kind) ?? { count: 0, names: new Map<string, number>() };
  account.count += by * count;
  for (const name of names) {
    const holders = (account.names.get(name) ?? 0) + by;
    if (holders > 0) account.names.set(name, holders);
    else account.names.delete(name);
  }
  if (account.count > 0) kinds.set(kind, account);
  else kinds.delete(kind);
}

function countDomain({ attribute, counts }: Domains, node: Node, active: number, occupying: number): void {
  const value = attributeOf(attribute, node);
  const usage = counts.get(value) ?? { active: 0, occupying: 0 };
  usage.active += active;
  usage.occupying += occupying;
  if (usage.occupying > 0) counts.set(value, usage);
  else counts.delete(value);
}

function nameOf({ spec }: Service): string {
  return qualifiedName(spec.project, spec.name);
}

function byName(a: Account, b: Account): number {
  if (a.node.name !== b.node.name) return a.node.name < b.node.name ? -1 : 1;
  return a.node.id < b.node.id ? -1 : 1;
}
