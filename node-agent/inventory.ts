/** The keyed set of what this node should hold: full sets in parts, then increments, never of an older epoch or out of turn. */
import type { AssignmentSet } from '#proto/gen/gantry/v1/agent.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { AssignmentItem, Endpoint, Peer, TaskAssignment } from '#proto/model/assignment.ts';
import { assignmentKey } from '#proto/model/assignment.ts';
import type { Credential } from '#proto/model/cluster.ts';
import { contentKey, type DocumentContent, type DocumentRef } from '#proto/model/document.ts';
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import { assignmentFromWire, assignmentToWire } from '#proto/model/wire.ts';
import { isShared, PartDigests, partOf } from '#proto/shared-parts.ts';

/** What one message changed. */
export interface InventoryChange {
  readonly put: readonly AssignmentItem[];
  readonly removed: readonly string[];
  readonly full: boolean;
  /** Keys of items that a newer control plane words in a way this version cannot read: what was held of them stays. */
  readonly unreadable: readonly string[];
}

export class Inventory {
  readonly #items = new Map<string, AssignmentItem>();
  /** Of what all nodes are told, but for what has changed since somebody asked. */
  readonly #digests = new PartDigests();
  readonly #undigested = new Set<string>();
  /** Those of one kind, as last asked for, until one of them changes. */
  readonly #listed = new Map<string, readonly AssignmentItem[]>();
  #others: { readonly all: readonly Peer[]; readonly self: NodeId; readonly list: readonly Peer[] } | undefined;
  #parts: Map<string, AssignmentItem> | undefined;
  #unreadable: string[] = [];
  #epoch = 0;
  #revision = 0;
  #loaded = false;

  /** `items`: the set of an earlier run, to go on with until the control plane is heard. */
  constructor(items: readonly AssignmentItem[] = []) {
    for (const item of items) this.#put(assignmentKey(item), item);
  }

  /** A full set has been taken since the start: only now is what it does not name known to be unwanted. */
  get loaded(): boolean {
    return this.#loaded;
  }
  get revision(): number {
    return this.#revision;
  }

  /** Takes one message; undefined for a part of a full set that is not complete yet, and for what is older than what is held. */
  take(set: AssignmentSet): InventoryChange | undefined {
    if (set.epoch < this.#epoch) return undefined;
    if (set.epoch > this.#epoch && !set.full) return undefined;
    const put = this.#read(set);
    if (set.full) {
      this.#parts ??= new Map();
      for (const item of put) this.#parts.set(assignmentKey(item), item);
      for (const key of this.#unreadable) {
        const held = this.#items.get(key);
        if (held) this.#parts.set(key, held);
      }
      if (set.more) return undefined;
      return this.#replace(this.#parts, set);
    }
    if (set.revision < this.#revision) return undefined;
    this.#revision = set.revision;
    for (const item of put) this.#put(assignmentKey(item), item);
    for (const key of set.remove) this.#remove(key);
    return { put, removed: set.remove, full: false, unreadable: this.#unreadable.splice(0) };
  }

  /** What a Hello says of what is held, so that only the rest is sent. */
  held(): Buffer {
    for (const key of this.#undigested) {
      const item = this.#items.get(key);
      if (item) this.#digests.put(assignmentToWire(item));
      else this.#digests.remove(key);
    }
    this.#undigested.clear();
    return this.#digests.all();
  }

  #put(key: string, item: AssignmentItem): void {
    this.#items.set(key, item);
    this.#listed.delete(item.kind);
    if (isShared(key)) this.#undigested.add(key);
  }

  #remove(key: string): void {
    this.#items.delete(key);
    this.#listed.delete(key.slice(0, key.indexOf('/')));
    if (isShared(key)) this.#undigested.add(key);
  }

  #read(set: AssignmentSet): AssignmentItem[] {
    const read: AssignmentItem[] = [];
    for (const assignment of set.put) {
      try {
        const item = assignmentFromWire(assignment);
        if (item) read.push(item);
      } catch (error) {
        if (!isFault(error)) throw error;
        this.#unreadable.push(assignment.key);
      }
    }
    return read;
  }

  /** A new session begins: what was received of an unfinished full set is not continued by it. */
  restart(): void {
    this.#parts = undefined;
    this.#unreadable = [];
  }

  /** What is held already stays the same object, and so does a list in which nothing has changed. */
  #replace(next: ReadonlyMap<string, AssignmentItem>, set: AssignmentSet): InventoryChange {
    const kept = new Set(set.kept);
    const removed = [...this.#items.keys()].filter(
      (key) => !next.has(key) && !(isShared(key) && kept.has(partOf(key))),
    );
    const put: AssignmentItem[] = [];
    for (const [key, item] of next) {
      const held = this.#items.get(key);
      if (!held || JSON.stringify(held) !== JSON.stringify(item)) put.push(item);
    }
    for (const key of removed) this.#remove(key);
    for (const item of put) this.#put(assignmentKey(item), item);
    this.#parts = undefined;
    this.#epoch = set.epoch;
    this.#revision = set.revision;
    this.#loaded = true;
    return { put, removed, full: true, unreadable: this.#unreadable.splice(0) };
  }

  tasks(): readonly TaskAssignment[] {
    return this.#of('task');
  }
  task(id: TaskId): TaskAssignment | undefined {
    return this.#items.get(`task/${id}`) as (AssignmentItem & { kind: 'task' }) | undefined;
  }
  endpoint(id: ServiceId): Endpoint | undefined {
    return this.#items.get(`endpoint/${id}`) as (AssignmentItem & { kind: 'endpoint' }) | undefined;
  }
  endpoints(): readonly Endpoint[] {
    return this.#of('endpoint');
  }
  /** The virtual address of a service of that project; '': it has none. */
  vipOf(project: string, service: string): string {
    const named = this.endpoints().find((one) => one.project === project && one.name === service);
    return named?.mode === 'vip' ? named.vip : '';
  }
  peers(): readonly Peer[] {
    return this.#of('peer');
  }
  /** Its peers, as that node sees them; the same list as long as none of them changes. */
  peersOf(self: NodeId): readonly Peer[] {
    const all = this.peers();
    if (this.#others?.all !== all || this.#others.self !== self)
      this.#others = { all, self, list: all.filter((peer) => peer.nodeId !== self) };
    return this.#others.list;
  }
  networks(): readonly ClusterNetwork[] {
    return this.#of('network');
  }
  credential(registry: string): Credential | undefined {
    return this.#items.get(`credential/${registry}`) as (AssignmentItem & { kind: 'credential' }) | undefined;
  }

  content(ref: DocumentRef): DocumentContent | undefined {
    return this.#items.get(`content/${contentKey(ref)}`) as (AssignmentItem & { kind: 'content' }) | undefined;
  }

  #of<K extends AssignmentItem['kind']>(kind: K): readonly Extract<AssignmentItem, { kind: K }>[] {
    const listed = this.#listed.get(kind) ?? [...this.#items.values()].filter((item) => item.kind === kind);
    this.#listed.set(kind, listed);
    return listed as readonly Extract<AssignmentItem, { kind: K }>[];
  }
}
