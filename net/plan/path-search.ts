/** The search for the widest packet that a path lets through: which sizes to ask with next, from what was answered so far. */

/** No path of IPv4 that is of use is narrower than this. */
const narrowest = 576;
/** In between, one path in many is; what is asked first beside the widest. */
const usual = 1280;
/** Sizes asked at a time: each round makes the gap nine times smaller. */
const atOnce = 8;

/** What is known of a path: the widest packet that passed (0: none), and the narrowest that did not. Bytes. */
export interface PathKnown {
  readonly passed: number;
  readonly failed: number;
}

/** Of a path nobody has asked, over a link of that width. */
export function nothingKnown(link: number): PathKnown {
  return { passed: 0, failed: link + 1 };
}

/**
 * The sizes to ask with next; none: the width is `passed`. `expected`: what it may be (as measured before, as a router said);
 * 0: nothing is expected.
 */
export function sizesToAsk({ passed, failed }: PathKnown, expected: number): readonly number[] {
  const widest = failed - 1;
  if (widest <= passed) return [];
  const within = (size: number) => size > passed && size <= widest;
  if (passed === 0) {
    const between = expected === 0 ? [usual] : [expected + 1, expected];
    return [...new Set([widest, ...between, narrowest].filter(within))];
  }
  // As a router said it: that size passes, and one more does not.
  if (within(expected)) return [...new Set([expected, expected + 1].filter(within))];
  const step = (widest - passed) / atOnce;
  const sizes = Array.from({ length: atOnce }, (_, index) => Math.ceil(passed + step * (index + 1)));
  return [...new Set(sizes)];
}

/** After a round: the sizes that were answered have passed, and of the others those that are wider than these have not. */
export function afterRound(known: PathKnown, asked: readonly number[], answered: ReadonlySet<number>): PathKnown {
  const passed = Math.max(known.passed, ...answered);
  // Without any answer nothing is said of sizes: the other end may be silent.
  if (passed === 0) return known;
  const silent = asked.filter((size) => size > passed);
  return { passed, failed: Math.min(known.failed, ...silent) };
}
