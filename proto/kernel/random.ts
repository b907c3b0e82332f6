/** The only door to randomness, so that a simulation can replay it from a seed. */
import { randomFillSync } from 'node:crypto';

export interface Random {
  /** An integer in [0, bound). */
  int(bound: number): number;
  bytes(length: number): Uint8Array;
}

/** Cryptographically strong; for ids, tokens and jitter. */
export const systemRandom: Random = {
  int: pooledInt(),
  bytes: (length) => randomFillSync(new Uint8Array(length)),
};

/** A call into the crypto library takes microseconds, and an id takes 25 numbers: they are fetched by the thousand. */
function pooledInt(): Random['int'] {
  const pool = new Uint32Array(1_024);
  let next = pool.length;
  return (bound) => {
    if (next === pool.length) {
      randomFillSync(pool);
      next = 0;
    }
    return Math.floor((pool[next++]! / 2 ** 32) * bound);
  };
}

/** Deterministic, from a 32-bit seed (mulberry32); never for secrets. */
export function seededRandom(seed: number): Random {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  return {
    int: (bound) => Math.floor((next() / 2 ** 32) * bound),
    bytes: (length) => Uint8Array.from({ length }, () => next() & 0xff),
  };
}

const base36 = '0123456789abcdefghijklmnopqrstuvwxyz';

/** A fresh object id: 25 characters of base 36, as Docker's clients expect of cluster objects. */
export function newId(random: Random): string {
  let id = '';
  for (let index = 0; index < 25; index++) id += base36[random.int(36)];
  return id;
}
