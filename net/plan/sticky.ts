/** Which backend a client keeps: by a number made of its address, dealt so that a backend that leaves moves its own clients alone. */
import { tryAddress } from './cidr.ts';

/** Clients are told apart by a hash of their address, modulo this (`jhash` in net/plan/rules.ts). */
export const bucketCount = 64;

/** To each bucket its backend: of the addresses the one that the bucket likes best, whoever else is there. Empty without addresses. */
export function bucketsOf(addresses: readonly string[]): readonly string[] {
  if (addresses.length === 0) return [];
  const numbers = addresses.map((address) => tryAddress(address) ?? 0);
  return Array.from({ length: bucketCount }, (_, bucket) => {
    let [best, most] = [0, -1];
    for (const [index, number] of numbers.entries()) {
      const liking = mix(number, bucket);
      if (liking > most) [best, most] = [index, liking];
    }
    return addresses[best] as string;
  });
}

/** 32 bits out of an address and a bucket, each of whose bits depends on all of theirs (MurmurHash3's finalizer, twice). */
function mix(address: number, bucket: number): number {
  return finalize(finalize(address) ^ Math.imul(bucket + 1, 0x9e3779b9));
}

function finalize(value: number): number {
  let hash = value | 0;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
