/** What probes say of a host that is silent: whether its kernel lives although nothing of ours on it is heard. */
import type { NodeId } from '#proto/model/ids.ts';

/** One asking of a silent host's kernel, from here and by peers on other hosts. */
export interface KernelRound {
  /** Monotonic ms. */
  readonly askedAtMs: number;
  /** The probe from here was answered; undefined: still awaited. */
  readonly leader: boolean | undefined;
  /** What each peer said that was asked; undefined: nothing yet. */
  readonly peers: ReadonlyMap<NodeId, boolean | undefined>;
  /** Who has said nothing by now is not waited for. */
  readonly closed: boolean;
}

/** What is known of a host's kernel. */
export interface KernelSeen {
  /** When it last answered a probe, from here or of a peer, monotonic ms; undefined: never since this leader began, as behind a firewall. */
  readonly answeredAtMs: number | undefined;
  /** What was seen last while the host was heard: whether it answers at all; undefined: nobody has looked since this leader began. */
  readonly answers?: boolean | undefined;
  /** The newest; undefined: there was no reason to ask. */
  readonly round: KernelRound | undefined;
  /** It is to be asked as soon as others that are silent too have been. */
  readonly waits?: boolean;
}

/**
 * `dead`: neither the leader nor any peer that it asked hears the kernel · `lives`: one of them does · `lived`: one of them did just
 * before, and whoever was asked this time could not say · `asking`: not all have said so, or nobody
 * has been asked yet · `untold`: probes can tell nothing,
 * because it never answered any, or because no other host was there to ask.
 */
export type KernelVerdict = 'dead' | 'lives' | 'lived' | 'asking' | 'untold';

/** What was heard of a kernel stands for so long where later rounds tell nothing. */
const standsMs = 5_000;

/** Whether its silence to probes says anything. `before`: what a leader before this one has seen. */
export function answersProbes({ answers, answeredAtMs }: KernelSeen, before: boolean): boolean {
  return answers ?? (answeredAtMs !== undefined || before);
}

/** Of a host whose last beat was at `lastMs`; `answeredBefore` as in `answersProbes`; `noEar`: a peer that is cut off whenever we are. */
export function kernelVerdict(
  seen: KernelSeen,
  lastMs: number,
  answeredBefore: boolean,
  noEar?: NodeId,
): KernelVerdict {
  const { answeredAtMs = Number.NEGATIVE_INFINITY, round } = seen;
  const said = round && round.askedAtMs >= lastMs ? [round.leader, ...round.peers.values()] : [];
  if (said.includes(true)) return 'lives';
  if (seen.waits) return 'asking';
  if (!answersProbes(seen, answeredBefore)) return 'untold';
  if (!round || round.askedAtMs < lastMs) return 'asking';
  if (!round.closed && said.includes(undefined)) return 'asking';
  const isHeardByNone = round.leader === false && [...round.peers].some(([id, said]) => said === false && id !== noEar);
  if (isHeardByNone) return 'dead';
  return answeredAtMs >= lastMs && round.askedAtMs - answeredAtMs < standsMs ? 'lived' : 'untold';
}

/** Who heard what, in words. `answeredBefore` as in `answersProbes`; `nameOf`: of a node. */
export function probeWords(seen: KernelSeen, answeredBefore: boolean, nameOf: (id: NodeId) => string): string {
  const { round } = seen;
  if (!answersProbes(seen, answeredBefore))
    return 'its kernel does not answer probes (a firewall?): silence alone counts';
  if (!round) return 'its kernel answers probes; there was no reason to ask others';
  const words = (said: boolean | undefined) =>
    said === undefined ? 'did not say' : said ? 'heard its kernel' : 'heard nothing';
  const peers = [...round.peers].map(([id, said]) => `${nameOf(id)} ${words(said)}`);
  return `probed by: ${[`the leader ${words(round.leader)}`, ...peers].join(', ')}`;
}
