/** What is the same for all nodes: networks, endpoints and peers, as parts of full sets that are made once, and sent to each node as they are. */
import type { ControlMessage, Assignment as WireAssignment } from '#proto/gen/gantry/v1/agent.ts';
import type { AssignmentItem } from '#proto/model/assignment.ts';
import { nodeId, serviceId } from '#proto/model/ids.ts';
import { assignmentToWire } from '#proto/model/wire.ts';
import type { Snapshot } from '../store/snapshot.ts';
import { type Dirty, endpointOf, peerOf, servicesOnAny } from './assign.ts';

/** Some of the shared items, by key, and the message that holds them, until one of them changes. */
export interface SharedPart {
  readonly keys: Set<string>;
  message: ControlMessage | undefined;
}

/** Records behind the items of one part: about 100 kB. */
const partRecords = 1_024;
/** A part is what is made anew for one change, and a message: neither is to grow with the cluster for ever, nor their number. */
const mostParts = 256;
/** Items that were asked for lately, one by one. */
const mostKept = 1_000;

/** Of one leadership; it must hear of every change from the moment it was made. */
export class SharedSet {
  readonly #snapshot: Snapshot;
  readonly #epoch: number;
  #parts: readonly SharedPart[] | undefined;
  readonly #kept = new Map<string, WireAssignment>();

  /** `snapshot`: the one that goes with the store. */
  constructor(snapshot: Snapshot, epoch: number) {
    this.#snapshot = snapshot;
    this.#epoch = epoch;
  }

  /** Those of a full set. Whoever sends them over some time owes what changed since it began. */
  parts(): readonly SharedPart[] {
    const wanted = partsFor(this.#snapshot);
    if (this.#parts && wanted <= 4 * this.#parts.length && this.#parts.length <= 4 * wanted) return this.#parts;
    const parts = Array.from({ length: wanted }, (): SharedPart => ({ keys: new Set(), message: undefined }));
    for (const key of sharedKeys(this.#snapshot)) partOf(parts, key).keys.add(key);
    this.#parts = parts;
    return parts;
  }

  messageOf(part: SharedPart): ControlMessage {
    part.message ??= this.#make(part);
    return part.message;
  }

  #make({ keys }: SharedPart): ControlMessage {
    const put: WireAssignment[] = [];
    for (const key of keys) {
      const item = sharedItem(this.#snapshot, key);
      if (item) put.push(assignmentToWire(item));
    }
    // Of no revision and no instant: what ends the set has them, and this one outlives both.
    const none = { revision: 0, remove: [], sentAtMs: 0 };
    return { body: { $case: 'assignments', value: { epoch: this.#epoch, full: true, more: true, put, ...none } } };
  }

  /** One item as it is now: the same object to all who ask for it before it changes. */
  item(key: string): WireAssignment | undefined {
    const held = this.#kept.get(key);
    if (held) return held;
    const item = sharedItem(this.#snapshot, key);
    if (!item) return undefined;
    const made = assignmentToWire(item);
    if (this.#kept.size >= mostKept) this.#kept.clear();
    this.#kept.set(key, made);
    return made;
  }

  changed(keys: Iterable<string>): void {
    for (const key of keys) {
      this.#kept.delete(key);
      if (!this.#parts) continue;
      const part = partOf(this.#parts, key);
      part.message = undefined;
      if (isThere(this.#snapshot, key)) part.keys.add(key);
      else part.keys.delete(key);
    }
  }
}

/** Keys of the shared items that a step made stale. */
export function staleKeys(snapshot: Snapshot, { networks, endpoints, ipv6, peers }: Dirty): string[] {
  return [
    ...[...networks].map((name) => `network/${name}`),
    ...[...endpoints, ...servicesOnAny(snapshot, ipv6)].map((id) => `endpoint/${id}`),
    ...[...peers].map((id) => `peer/${id}`),
  ];
}

/** Keys of all that every node is told. */
export function* sharedKeys(snapshot: Snapshot): Generator<string> {
  for (const key of snapshot.keys('node')) yield `peer/${key}`;
  for (const key of snapshot.keys('network')) yield `network/${key}`;
  for (const key of snapshot.keys('service')) yield `endpoint/${key}`;
}

/** What is told of it; undefined where it is gone, or there is nothing to tell yet. */
export function sharedItem(snapshot: Snapshot, key: string): AssignmentItem | undefined {
  const [kind, name] = split(key);
  switch (kind) {
    case 'peer': {
      const node = snapshot.node(nodeId(name));
      const peer = node && peerOf(node);
      return peer && { kind: 'peer', ...peer };
    }
    case 'network': {
      const network = snapshot.get('network', name)?.value;
      return network && { kind: 'network', ...network };
    }
    case 'endpoint': {
      const service = snapshot.service(serviceId(name));
      return service && { kind: 'endpoint', ...endpointOf(snapshot, service) };
    }
  }
}

function isThere(snapshot: Snapshot, key: string): boolean {
  const [kind, name] = split(key);
  return snapshot.get(kind === 'peer' ? 'node' : kind === 'endpoint' ? 'service' : 'network', name) !== undefined;
}

function split(key: string): [kind: 'peer' | 'network' | 'endpoint', name: string] {
  const at = key.indexOf('/');
  return [key.slice(0, at) as 'peer' | 'network' | 'endpoint', key.slice(at + 1)];
}

function partsFor(snapshot: Snapshot): number {
  const records = (['node', 'network', 'service', 'task'] as const).reduce(
    (sum, table) => sum + snapshot.count(table),
    0,
  );
  return Math.min(mostParts, Math.max(1, Math.ceil(records / partRecords)));
}

/** FNV-1a of the key: the same key is always in the same part. */
function partOf(parts: readonly SharedPart[], key: string): SharedPart {
  let hash = 0x811c9dc5;
  for (let index = 0; index < key.length; index++) hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193);
  return parts[(hash >>> 0) % parts.length] as SharedPart;
}
