/** What the doctor finds: one hop of a path, whether it is good, and what to do about it; and which of the broken ones is the cause. */

/**
 * The hops, each before those that fail because of it: of all that is broken, the first is the cause.
 * `vip` is how one service is balanced, `table` all that we have in nftables; `firewall` is a rule that was seen to drop a packet, or that drops all that is forwarded; `reach` is the sending itself.
 */
export const hops = [
  'node',
  'network',
  'task',
  'isolation',
  'conflict',
  'address',
  'forwarding',
  'bridge',
  'link',
  'route',
  'tunnel',
  'mtu',
  'vip',
  'table',
  'firewall',
  'listener',
  'dns',
  'health',
  'rules',
  'reach',
] as const;
export type Hop = (typeof hops)[number];

/** `unknown`: it does not look right, but may be meant so: it counts only where nothing gets through and nothing else is broken. */
export type Verdict = 'good' | 'broken' | 'unknown';

export interface Finding {
  /** What it belongs to, as people write it: `web.1 → db.1:5432`. */
  readonly path: string;
  readonly hop: Hop;
  /** Name of the node it was found on; empty: in the control plane's books. */
  readonly node: string;
  readonly verdict: Verdict;
  readonly says: string;
  /** Empty where it is good. */
  readonly remedy: string;
  readonly subject: string;
  readonly wanted: string;
  readonly seen: string;
}

/** The cause among the findings of one path; undefined where nothing is broken. */
export function causeOf(findings: readonly Finding[]): Finding | undefined {
  const first = (verdict: Verdict) =>
    findings
      .filter((finding) => finding.verdict === verdict)
      .reduce<Finding | undefined>((best, one) => (best && !isBefore(one, best) ? best : one), undefined);
  const broken = first('broken');
  if (broken && broken.hop !== 'reach') return broken;
  return broken ? (first('unknown') ?? broken) : undefined;
}

export function isHop(text: string): text is Hop {
  return (hops as readonly string[]).includes(text);
}

/** Of one hop, what was seen tells more than what is missing. */
function isBefore(one: Finding, other: Finding): boolean {
  return rank(one) < rank(other) || (rank(one) === rank(other) && one.seen !== '' && other.seen === '');
}

function rank(finding: Finding): number {
  return hops.indexOf(finding.hop);
}
