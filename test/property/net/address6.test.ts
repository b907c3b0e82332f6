/** IPv6 addresses: what is written is read back, and read as Node reads it. */
import { isIPv6 } from 'node:net';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { formatAddress6, tryAddress6 } from '#net/plan/address6.ts';

const byte = fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, fc.integer({ min: 0, max: 255 }));
const bytes = fc.array(byte, { minLength: 16, maxLength: 16 });

it('text and bytes are each other', () => {
  fc.assert(
    fc.property(bytes, (one) => {
      const text = formatAddress6(one);
      expect(tryAddress6(text)).toEqual(one);
      expect(new URL(`http://[${text}]`).hostname).toBe(`[${text}]`);
    }),
  );
});

it('is an address where Node says so, but for zones', () => {
  const part = fc.constantFrom('0', 'ffff', '1', ':', '::', '.', '10.0.0.1', 'g', '12345', '%1', '');
  fc.assert(
    fc.property(fc.array(part, { maxLength: 10 }), fc.constantFrom('', ':'), (parts, joint) => {
      const text = parts.join(joint);
      fc.pre(!text.includes('%'));
      expect(tryAddress6(text) !== undefined).toBe(isIPv6(text));
    }),
    { numRuns: 2_000 },
  );
});
