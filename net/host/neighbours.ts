/** Which MAC each peer has on the link, as the kernel has learnt it: by it a host tells which node a packet came by. */
import { Netlink } from './netlink.ts';
import * as routing from './routing.ts';
import * as rt from './rtnetlink.ts';

/** In looks, of which there are five a second: how often is asked for a peer without a MAC, and whether the others' still holds. */
const askEvery = 5;
const confirmEvery = 150;

export class Neighbours {
  readonly #netlink = new Netlink(0);
  readonly #monitor = new rt.Monitor(rt.neighbourGroups, new Set());
  #addresses: readonly string[] = [];
  #macs: ReadonlyMap<string, string> = new Map();
  #looks = 0;

  /**
   * The MACs of those of `addresses` that are known on the link: the same object as long as it is the same news. What
   * was known of an address stays until another MAC is learnt, for a peer that is silent for a while comes back as it was.
   * To be called often: it keeps the kernel asking.
   */
  macs(addresses: readonly string[]): ReadonlyMap<string, string> {
    const others = addresses.length !== this.#addresses.length || addresses.some((a, i) => a !== this.#addresses[i]);
    this.#addresses = addresses;
    if (this.#monitor.disturbed() || others) this.#read();
    if (others) this.#looks = 0;
    const look = this.#looks++;
    if (look % confirmEvery === 0) this.#ask(addresses);
    else if (look % askEvery === 0) this.#ask(addresses.filter((address) => !this.#macs.has(address)));
    return this.#macs;
  }

  #read(): void {
    const seen = rt.listNeighbours(this.#netlink);
    const macs = new Map<string, string>();
    for (const address of this.#addresses) {
      const mac = seen.get(address) ?? this.#macs.get(address);
      if (mac !== undefined) macs.set(address, mac);
    }
    const same = macs.size === this.#macs.size && [...macs].every(([address, mac]) => this.#macs.get(address) === mac);
    if (!same) this.#macs = macs;
  }

  /** An answer is heard by the monitor. Where nobody can be asked, nobody is known, which is answer enough. */
  #ask(addresses: readonly string[]): void {
    const requests = addresses.flatMap((address) => {
      const way = routing.wayTo(this.#netlink, address);
      return way?.direct ? [rt.askNeighbour(way.link, address)] : [];
    });
    this.#netlink.try(requests);
  }

  close(): void {
    this.#monitor.close();
    this.#netlink.close();
  }
}
