/**
 * Asks who is next on the way to an address, without the kernel's pauses: it asks once a second, so that a cable that is plugged
 * in again stays unused for up to one. The kernel hears the answer, and sends what waits for it.
 */

import type { Clock } from '#proto/kernel/clock.ts';
import { closeFd, openLink, sendOnLink } from './libc.ts';
import { addressBytes, Netlink } from './netlink.ts';
import { type HostWay, wayTo } from './routing.ts';
import { hasCarrier, macBytes, neighbourMac } from './rtnetlink.ts';

/** The protocol's number on Ethernet (RFC 826). */
export const ETH_P_ARP = 0x0806;

/** For so long everybody on the link is asked: whoever is next may have another MAC by now. */
const eagerMs = 10_000;
/** How often everybody is asked after that, where nobody is known who could be asked alone. */
const rareMs = 1_000;

/** Who is next on a way. */
interface Next {
  /** As the kernel last had it; undefined: it had none. */
  readonly mac: Buffer | undefined;
  /** When its link was last seen without a carrier, and when everybody was last asked; monotonic ms. */
  readonly unpluggedMs: number;
  readonly askedAllMs: number;
}

/**
 * The function that asks; it remembers whom. `address`: IPv4. Nothing where there is no way, no carrier, or no need to ask on it.
 * `silentMs`: for how long there has been no answer. After the first seconds it is asked of the one alone who had the address, whom the switch leads
 * it to: a rack of nodes that are cut off for hours does not wake everybody on their link three times a second each.
 */
export function seeker(clock: Pick<Clock, 'monotonic'>): (address: string, silentMs: number) => void {
  const known = new Map<string, Next>();
  return (address, silentMs) => {
    const netlink = new Netlink(0);
    try {
      const way = wayTo(netlink, address);
      if (way && way.source !== '')
        known.set(way.next, ask(netlink, way, silentMs, clock.monotonic(), known.get(way.next)));
    } finally {
      netlink.close();
    }
  };
}

function ask(netlink: Netlink, way: HostWay, silentMs: number, now: number, before: Next | undefined): Next {
  const { unpluggedMs = Number.NEGATIVE_INFINITY, askedAllMs = Number.NEGATIVE_INFINITY } = before ?? {};
  const text = neighbourMac(netlink, way.link, way.next);
  const mac = text === undefined ? before?.mac : macBytes(text);
  if (!hasCarrier(netlink, way.link)) return { mac, unpluggedMs: now, askedAllMs };
  const isEager = Math.min(silentMs, now - unpluggedMs) < eagerMs;
  const asksAll = isEager || (mac === undefined && now - askedAllMs >= rareMs);
  if (asksAll) send(way, undefined);
  else if (mac !== undefined) send(way, mac);
  return { mac, unpluggedMs, askedAllMs: asksAll ? now : askedAllMs };
}

/** `to`: undefined for everybody. */
function send({ link, source, next }: HostWay, to: Buffer | undefined): void {
  const { fd, mac } = openLink(link);
  if (mac.length === 6) sendOnLink(fd, arpRequest(mac, source, next), link, ETH_P_ARP, to);
  closeFd(fd);
}

/** RFC 826, for Ethernet and IPv4: `from` at `mac` asks who has `address`. */
export function arpRequest(mac: Buffer, from: string, address: string): Buffer {
  const head = Buffer.from([0, 1, 8, 0, 6, 4, 0, 1]);
  return Buffer.concat([head, mac, addressBytes(from), Buffer.alloc(6), addressBytes(address)]);
}
