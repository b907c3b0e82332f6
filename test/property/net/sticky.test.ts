/** Who leaves moves its own clients alone; who comes takes no more than its share. */
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { bucketCount, bucketsOf } from '#net/plan/sticky.ts';

const addresses = fc.uniqueArray(
  fc
    .tuple(fc.integer({ min: 0, max: 9 }), fc.integer({ min: 2, max: 254 }))
    .map(([node, last]) => `10.192.${node}.${last}`),
  { minLength: 1, maxLength: 12 },
);

it('a backend that leaves moves its own buckets alone', () => {
  fc.assert(
    fc.property(addresses, fc.nat(), (all, which) => {
      const leaving = all[which % all.length];
      const rest = all.filter((address) => address !== leaving);
      const before = bucketsOf(all);
      const after = bucketsOf(rest);
      expect(before).toHaveLength(bucketCount);
      for (const [bucket, address] of after.entries()) {
        if (before[bucket] !== leaving) expect(address).toBe(before[bucket]);
        expect(rest).toContain(address);
      }
    }),
  );
});

it('does not depend on the order that backends are named in', () => {
  fc.assert(
    fc.property(addresses, (all) => {
      expect(bucketsOf([...all].reverse())).toEqual(bucketsOf(all));
    }),
  );
});

it('gives nobody far more than its share', () => {
  const all = ['10.192.1.2', '10.192.1.3', '10.192.2.2', '10.192.2.3'];
  const counts = Map.groupBy(bucketsOf(all), (address) => address);
  expect(counts.size).toBe(4);
  for (const buckets of counts.values()) expect(buckets.length).toBeLessThan(28);
});
