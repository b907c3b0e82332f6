/** Which commits may travel together: held for any commits and any limits. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { nextBatch, type QueuedCommit } from '#control-plane/store/commit-queue.ts';

const commit: fc.Arbitrary<QueuedCommit> = fc.record({
  keys: fc.uniqueArray(fc.constantFrom('a', 'b', 'c', 'd', 'e', 'f'), { minLength: 1, maxLength: 4 }),
  bytes: fc.integer({ min: 1, max: 100 }),
  epoch: fc.constantFrom(undefined, 1, 2),
});
const limits = fc.record({
  keys: fc.integer({ min: 1, max: 10 }),
  bytes: fc.integer({ min: 1, max: 200 }),
  inFlight: fc.constant(1),
});

test('a batch holds the first commit, one epoch, no key twice, and no more than the limits', () => {
  fc.assert(
    fc.property(fc.array(commit, { minLength: 1, maxLength: 12 }), limits, (waiting, bounds) => {
      const { batch, rest } = nextBatch(waiting, bounds);
      expect(batch[0]).toBe(waiting[0]);
      expect(new Set(batch.map(({ epoch }) => epoch)).size).toBe(1);
      const keys = batch.flatMap((one) => one.keys);
      expect(new Set(keys).size).toBe(keys.length);
      if (batch.length > 1) {
        expect(keys.length).toBeLessThanOrEqual(bounds.keys);
        expect(batch.reduce((sum, { bytes }) => sum + bytes, 0)).toBeLessThanOrEqual(bounds.bytes);
      }
      expect([...batch, ...rest].length).toBe(waiting.length);
      expect(new Set([...batch, ...rest])).toEqual(new Set(waiting));
    }),
  );
});

test('no commit overtakes an earlier one of the same key', () => {
  fc.assert(
    fc.property(fc.array(commit, { minLength: 1, maxLength: 12 }), limits, (waiting, bounds) => {
      const { batch, rest } = nextBatch(waiting, bounds);
      for (const late of batch)
        for (const early of rest)
          if (waiting.indexOf(early) < waiting.indexOf(late))
            expect(early.keys.some((key) => late.keys.includes(key))).toBe(false);
    }),
  );
});
