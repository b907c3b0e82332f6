/** Which subnet or address comes next: a function of what is taken, so that every replica of the control plane agrees. */
import { Fault } from '#proto/kernel/errors.ts';
import { type Cidr, formatAddress, formatCidr, overlaps, parseCidr, sizeOf, tryAddress } from './cidr.ts';

/**
 * The first subnet of `prefix` bits in `network` that overlaps none of `used` (CIDRs); undefined when all are taken.
 * Fault('invalid') when the network is smaller than one subnet.
 */
export function nextSubnet(used: Iterable<string>, network: string, prefix: number): string | undefined {
  const range = parseCidr(network);
  if (prefix < range.prefix || prefix > 30) {
    throw new Fault('invalid', `${network} cannot be cut into subnets of /${prefix}`, {
      remedy: `choose a prefix between ${range.prefix} and 30`,
    });
  }
  const step = 2 ** (32 - prefix);
  const end = range.base + sizeOf(range);
  const taken = [...used].map(parseCidr).sort((a, b) => a.base - b.base);
  let index = 0;
  for (let base = range.base; base < end; ) {
    const candidate: Cidr = { base, prefix };
    while (index < taken.length && (taken[index] as Cidr).base + sizeOf(taken[index] as Cidr) <= base) index++;
    const clash = taken.slice(index).find((cidr) => overlaps(cidr, candidate));
    if (!clash) return formatCidr(candidate);
    const after = clash.base + sizeOf(clash);
    base = Math.max(base + step, Math.ceil(after / step) * step);
  }
  return undefined;
}

/**
 * The next free address of `subnet`: neither its first (network), second (gateway) nor last (broadcast) one, nor in `used`.
 * The search begins behind `after` and wraps around: hand over the address given last, so that an address whose
 * owner has just gone rests as long as possible before it means somebody else. Without it the lowest free one is taken.
 * Undefined when all are taken. Serves VIPs just as well: hand over the VIP network.
 */
export function nextAddress(subnet: string, used: ReadonlySet<string>, after?: string): string | undefined {
  const range = parseCidr(subnet);
  return nextWithin(range.base + 2, sizeOf(range) - 3, used, after);
}

/** As `nextAddress`, of the `count` addresses from the number `first`, whatever they are in their subnet. */
export function nextWithin(
  first: number,
  count: number,
  used: Pick<ReadonlySet<string>, 'has' | 'size'>,
  after?: string,
): string | undefined {
  if (count <= 0) return undefined;
  const last = after === undefined ? undefined : tryAddress(after);
  const start = last !== undefined && last >= first && last < first + count ? last - first + 1 : 0;
  // Of `used` at most `used.size` can stand in the way: one more step than that finds a free one or goes all the way round.
  for (let index = 0; index < count && index <= used.size; index++) {
    const address = formatAddress(first + ((start + index) % count));
    if (!used.has(address)) return address;
  }
  return undefined;
}

/** Widest and narrowest subnet that a node may be given by hand. */
const pinPrefixes = { min: 16, max: 28 } as const;

/** What keeps a text from being the subnet of any node; undefined where it may be one. */
export function pinnedSubnetProblem(text: string): string | undefined {
  let range: Cidr;
  try {
    range = parseCidr(text);
  } catch {
    return 'is not an IPv4 range';
  }
  if (formatCidr(range) !== text) return `has host bits: its range is ${formatCidr(range)}`;
  const { min, max } = pinPrefixes;
  return range.prefix < min || range.prefix > max ? `is not between /${min} and /${max}` : undefined;
}
