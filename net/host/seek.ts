/**
 * Asks who is next on the way to an address, without the kernel's pauses: it asks once a second, so that a cable that is plugged
 * in again stays unused for up to one. The kernel hears the answer, and sends what waits for it.
 */

import { closeFd, openLink, sendToAll } from './libc.ts';
import { addressBytes, Netlink } from './netlink.ts';
import { wayTo } from './routing.ts';

/** The protocol's number on Ethernet (RFC 826). */
export const ETH_P_ARP = 0x0806;

/** `address`: IPv4. Nothing where there is no way, or no need to ask on it. */
export function seek(address: string): void {
  const netlink = new Netlink(0);
  try {
    const way = wayTo(netlink, address);
    if (!way || way.source === '') return;
    const { fd, mac } = openLink(way.link);
    if (mac.length === 6) sendToAll(fd, arpRequest(mac, way.source, way.next), way.link, ETH_P_ARP);
    closeFd(fd);
  } finally {
    netlink.close();
  }
}

/** RFC 826, for Ethernet and IPv4: `from` at `mac` asks who has `address`. */
export function arpRequest(mac: Buffer, from: string, address: string): Buffer {
  const head = Buffer.from([0, 1, 8, 0, 6, 4, 0, 1]);
  return Buffer.concat([head, mac, addressBytes(from), Buffer.alloc(6), addressBytes(address)]);
}
