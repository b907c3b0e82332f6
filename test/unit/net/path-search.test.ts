/** The width of a path is found in few rounds, whatever it is, and lost packets make it no narrower than what has passed. */
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { afterRound, nothingKnown, sizesToAsk } from '#net/plan/path-search.ts';

/** Asks a path of that width until all is known; how many rounds that took. */
function search(width: number, link: number, expected = 0): { readonly found: number; readonly rounds: number } {
  let known = nothingKnown(link);
  for (let rounds = 0; ; rounds++) {
    const asked = sizesToAsk(known, rounds === 0 ? expected : 0);
    if (asked.length === 0) return { found: known.passed, rounds };
    known = afterRound(known, asked, new Set(asked.filter((size) => size <= width)));
  }
}

describe('the width of a path', () => {
  it('is that of the link after one round where nothing is in between', () => {
    expect(search(1500, 1500)).toEqual({ found: 1500, rounds: 1 });
    expect(search(9000, 9000)).toEqual({ found: 9000, rounds: 1 });
  });

  it('is found exactly, in few rounds', () => {
    fc.assert(
      fc.property(fc.integer({ min: 576, max: 9000 }), fc.integer({ min: 0, max: 3000 }), (width, more) => {
        const { found, rounds } = search(width, width + more);
        expect(found).toBe(width);
        expect(rounds).toBeLessThanOrEqual(7);
      }),
    );
  });

  it('is confirmed in one round where it was known before, and found again where it is another', () => {
    expect(search(1400, 1500, 1400)).toEqual({ found: 1400, rounds: 1 });
    expect(search(1500, 1500, 1400)).toEqual({ found: 1500, rounds: 1 });
    expect(search(1300, 1500, 1400).found).toBe(1300);
  });

  it('is confirmed in one more round where a router said it', () => {
    expect(sizesToAsk({ passed: 1280, failed: 1500 }, 1400)).toEqual([1400, 1401]);
  });

  it('is not known where nobody answers', () => {
    const known = nothingKnown(1500);
    expect(afterRound(known, sizesToAsk(known, 0), new Set())).toEqual(known);
  });
});
