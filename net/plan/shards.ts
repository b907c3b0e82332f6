/** A map that is never changed but followed by another: both share all but the shards that differ, so a change costs the same however large it is. */

/** Ten thousand entries are eighty to a shard: copying one, and comparing all, take some microseconds each. */
const usualCount = 128;

export type Shards<V> = readonly ReadonlyMap<string, V>[];

export function shardsOf<V>(entries: Iterable<readonly [string, V]>, count = usualCount): Shards<V> {
  const shards = Array.from({ length: count }, () => new Map<string, V>());
  for (const [key, value] of entries) shards[indexOf(key, count)]?.set(key, value);
  return shards;
}

export function lookUp<V>(shards: Shards<V>, key: string): V | undefined {
  return shards[indexOf(key, shards.length)]?.get(key);
}

/** The map with other values for some keys; undefined: without that key. */
export function changed<V>(shards: Shards<V>, changes: Iterable<readonly [string, V | undefined]>): Shards<V> {
  const copies = new Map<number, Map<string, V>>();
  for (const [key, value] of changes) {
    const index = indexOf(key, shards.length);
    const shard = copies.get(index) ?? new Map(shards[index]);
    copies.set(index, shard);
    if (value === undefined) shard.delete(key);
    else shard.set(key, value);
  }
  return shards.map((shard, index) => copies.get(index) ?? shard);
}

/** What is another object in `now` than in `then`: `[key, now, then]`. */
export function* changesBetween<V>(
  now: Shards<V>,
  then: Shards<V>,
): Generator<readonly [string, V | undefined, V | undefined]> {
  for (const [index, shard] of now.entries()) {
    const old = then[index] ?? new Map<string, V>();
    if (old === shard) continue;
    for (const [key, value] of shard) if (old.get(key) !== value) yield [key, value, old.get(key)];
    for (const [key, value] of old) if (!shard.has(key)) yield [key, undefined, value];
  }
}

export function* keysOf(shards: Shards<unknown>): Generator<string> {
  for (const shard of shards) yield* shard.keys();
}

export function* valuesOf<V>(shards: Shards<V>): Generator<V> {
  for (const shard of shards) yield* shard.values();
}

function indexOf(key: string, count: number): number {
  let hash = 0;
  for (let index = 0; index < key.length; index++) hash = (hash * 31 + key.charCodeAt(index)) | 0;
  return (hash >>> 0) % count;
}
