/**
 * What all nodes are told, in parts that both ends know by number. A node names in its Hello a digest of what it holds of each, and is
 * sent those alone that are otherwise. A digest follows from the items of a part, not from their order nor from who tells of them.
 */
import { hash } from 'node:crypto';
import { Assignment } from './gen/gantry/v1/agent.ts';

/** For ever the same: who counts otherwise is told everything. */
export const partCount = 256;
/** Of SHA-256. */
const digestBytes = 16;

/** All nodes are told the same of it: it is in a part. */
export function isShared(key: string): boolean {
  return key.startsWith('endpoint/') || key.startsWith('peer/') || key.startsWith('network/');
}

/** FNV-1a of the key, its highest byte: the same key is always in the same part. */
export function partOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < key.length; index++) hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193);
  return hash >>> 24;
}

/** Digests of items, by part, kept while items come and go. */
export class PartDigests {
  readonly #parts = Array.from({ length: partCount }, () => ({
    items: new Map<string, string>(),
    digest: undefined as string | undefined,
  }));

  put(item: Assignment): void {
    this.#set(item.key, digestOf(Assignment.encode(item).finish()));
  }

  remove(key: string): void {
    this.#set(key, undefined);
  }

  /** Hex. Sorting makes it the same for the same items; hashing, and not adding, leaves nothing to be chosen so that others cancel out. */
  of(part: number): string {
    const held = this.#parts[part]!;
    held.digest ??= digestOf([...held.items.values()].sort().join(''));
    return held.digest;
  }

  /** Those of all parts, as a Hello carries them. */
  all(): Buffer {
    return Buffer.from(this.#parts.map((_, part) => this.of(part)).join(''), 'hex');
  }

  #set(key: string, digest: string | undefined): void {
    const part = this.#parts[partOf(key)]!;
    if (part.items.get(key) === digest) return;
    part.digest = undefined;
    if (digest === undefined) part.items.delete(key);
    else part.items.set(key, digest);
  }
}

/** The digests in a Hello, by part; undefined: it names none, or those of other parts than ours. */
export function digestsIn(held: Uint8Array): readonly string[] | undefined {
  if (held.length !== partCount * digestBytes) return undefined;
  const hex = Buffer.from(held).toString('hex');
  const digits = 2 * digestBytes;
  return Array.from({ length: partCount }, (_, part) => hex.slice(part * digits, (part + 1) * digits));
}

function digestOf(content: Uint8Array | string): string {
  return hash('sha256', content, 'hex').slice(0, 2 * digestBytes);
}
