/** The cause is always one of the findings, the first of the broken hops; where all is good nothing is named. */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { causeOf, type Finding, hops } from '#proto/model/net-finding.ts';

const words = fc.constantFrom('', 'x', 'y');
const finding = (verdicts: readonly Finding['verdict'][]): fc.Arbitrary<Finding> =>
  fc.record({
    path: fc.constant('a → b'),
    hop: fc.constantFrom(...hops),
    node: words,
    verdict: fc.constantFrom(...verdicts),
    says: words,
    remedy: words,
    subject: words,
    wanted: words,
    seen: words,
  });
const any = fc.array(finding(['good', 'broken', 'unknown']));

test('nothing is named where all is good', () => {
  fc.assert(fc.property(fc.array(finding(['good'])), (findings) => causeOf(findings) === undefined));
});

test('what may be meant so is named only where nothing gets through', () => {
  fc.assert(fc.property(fc.array(finding(['good', 'unknown'])), (findings) => causeOf(findings) === undefined));
});

test('what is broken is named, and nothing that is broken comes before it', () => {
  fc.assert(
    fc.property(any, (findings) => {
      const cause = causeOf(findings);
      const broken = findings.filter(({ verdict }) => verdict === 'broken');
      expect(cause === undefined).toBe(broken.length === 0);
      if (!cause) return;
      expect(findings).toContain(cause);
      const before = broken.filter(({ hop }) => hop !== 'reach' && hops.indexOf(hop) < hops.indexOf(cause.hop));
      if (cause.verdict === 'broken') expect(before).toEqual([]);
      else expect(broken.every(({ hop }) => hop === 'reach')).toBe(true);
    }),
  );
});

test('good findings, and their order, change nothing', () => {
  fc.assert(
    fc.property(any, (findings) => {
      const bad = findings.filter(({ verdict }) => verdict !== 'good');
      expect(causeOf(findings)).toEqual(causeOf(bad));
      expect(causeOf([...findings].reverse())?.hop).toEqual(causeOf(findings)?.hop);
    }),
  );
});
