/** What is the same for all nodes: networks, endpoints and peers, in parts whose digests say which of them a node lacks, as messages that are made once for all who lack the same. */
import type { ControlMessage, Assignment as WireAssignment } from '#proto/gen/gantry/v1/agent.ts';
import type { AssignmentItem } from '#proto/model/assignment.ts';
import { nodeId, serviceId } from '#proto/model/ids.ts';
import { assignmentToWire } from '#proto/model/wire.ts';
import { PartDigests, partCount, partOf } from '#proto/shared-parts.ts';
import type { Snapshot } from '../store/snapshot.ts';
import { type Dirty, endpointOf, peerOf, servicesOnAny } from './assign.ts';

/** Records behind what goes in one message: about 100 kB. */
const messageRecords = 1_024;
/** Items that were asked for lately, one by one. */
const mostKept = 1_000;
/** Messages kept: each part alone, and what some nodes lacked together. */
const mostMessages = 4 * partCount;

interface Part {
  readonly keys: Set<string>;
  /** Of these, and of what has gone since, the digest is not known. */
  readonly undigested: Set<string>;
  /** Names of the messages that it is in. */
  readonly messages: Set<string>;
}

/** Of one leadership; it must hear of every change from the moment it was made. */
export class SharedSet {
  readonly #snapshot: Snapshot;
  readonly #epoch: number;
  #parts: readonly Part[] | undefined;
  readonly #digests = new PartDigests();
  #bundles: readonly (readonly number[])[] = [];
  readonly #messages = new Map<string, ControlMessage>();
  readonly #kept = new Map<string, WireAssignment>();

  /** `snapshot`: the one that goes with the store. */
  constructor(snapshot: Snapshot, epoch: number) {
    this.#snapshot = snapshot;
    this.#epoch = epoch;
  }

  /** The numbers of all parts, those together that one message holds. Whoever sends them over some time owes what changed since it began. */
  bundles(): readonly (readonly number[])[] {
    const wanted = bundlesFor(this.#snapshot);
    const { length } = this.#bundles;
    if (length === 0 || wanted > 4 * length || length > 4 * wanted) {
      const size = partCount / wanted;
      this.#bundles = Array.from({ length: wanted }, (_, bundle) =>
        Array.from({ length: size }, (_, index) => bundle * size + index),
      );
    }
    return this.#bundles;
  }

  /** Has the digests of these parts known; returns how many items had to be looked at. */
  digest(parts: readonly number[]): number {
    let items = 0;
    for (const number of parts) {
      const { undigested } = this.#part(number);
      items += undigested.size;
      for (const key of undigested) {
        const item = sharedItem(this.#snapshot, key);
        if (item) this.#digests.put(assignmentToWire(item));
        else this.#digests.remove(key);
      }
      undigested.clear();
    }
    return items;
  }

  /** As it is now; hex. */
  digestOf(part: number): string {
    this.digest([part]);
    return this.#digests.of(part);
  }

  /** These parts of a full set; the same object to all who lack the same, before something in it changes. Undefined: there is nothing in them. */
  messageOf(numbers: readonly number[]): ControlMessage | undefined {
    const filled = numbers.filter((number) => this.#part(number).keys.size > 0);
    if (filled.length === 0) return undefined;
    const name = filled.join();
    const held = this.#messages.get(name);
    if (held) return held;
    if (this.#messages.size >= mostMessages) this.#forgetMessages();
    const message = this.#make(filled);
    this.#messages.set(name, message);
    for (const number of filled) this.#part(number).messages.add(name);
    return message;
  }

  #make(numbers: readonly number[]): ControlMessage {
    const put: WireAssignment[] = [];
    for (const number of numbers)
      for (const key of this.#part(number).keys) {
        const item = sharedItem(this.#snapshot, key);
        if (item) put.push(assignmentToWire(item));
      }
    // Of no revision and no instant: what ends the set has them, and this one outlives both.
    const none = { revision: 0, remove: [], kept: [], sentAtMs: 0 };
    return { body: { $case: 'assignments', value: { epoch: this.#epoch, full: true, more: true, put, ...none } } };
  }

  #forgetMessages(): void {
    this.#messages.clear();
    for (const part of this.#parts ?? []) part.messages.clear();
  }

  #part(number: number): Part {
    this.#parts ??= this.#divide();
    return this.#parts[number]!;
  }

  #divide(): Part[] {
    const parts = Array.from(
      { length: partCount },
      (): Part => ({ keys: new Set(), undigested: new Set(), messages: new Set() }),
    );
    for (const key of sharedKeys(this.#snapshot)) {
      const { keys, undigested } = parts[partOf(key)]!;
      keys.add(key);
      undigested.add(key);
    }
    return parts;
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
      const part = this.#parts[partOf(key)]!;
      for (const name of part.messages) this.#messages.delete(name);
      part.messages.clear();
      part.undigested.add(key);
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

/** A power of two, so that each has as many parts. */
function bundlesFor(snapshot: Snapshot): number {
  const records = (['node', 'network', 'service', 'task'] as const).reduce(
    (sum, table) => sum + snapshot.count(table),
    0,
  );
  const wanted = Math.max(1, Math.ceil(records / messageRecords));
  return Math.min(partCount, 2 ** Math.ceil(Math.log2(wanted)));
}
