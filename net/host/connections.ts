/** Counts the connections that addresses of this host answer, as conntrack sees them: who is told to stop drains first. */
import { isFault } from '#proto/kernel/errors.ts';
import { addressBytes, addressText, attribute, attributesOf, type Message, Netlink, nested } from './netlink.ts';
import { readSysctl } from './sysctl.ts';

const NETLINK_NETFILTER = 12;
const GET = (1 << 8) | 1;
const CTA = { original: 1, reply: 2, protocolInfo: 4, filter: 25 } as const;
const TUPLE_IP = 1;
/** The destination's number follows; for IPv6. */
const IP_SOURCE = 1;
const IP6_SOURCE = 3;
const INFO_TCP = 1;
const TCP_STATE = 1;
const AF_UNSPEC = 0;
const AF_INET = 2;
const AF_INET6 = 10;
const filterBySource = 1;
/** SYN_SENT, SYN_RECV, ESTABLISHED, and half-closed: FIN_WAIT, CLOSE_WAIT. After the second FIN it is over. */
const [firstOpen, lastOpen] = [1, 5];

/** From this many entries on they are not read as a whole, unless many addresses are asked for. */
const manyEntries = 20_000;
const fewAddresses = 4;

export class Connections {
  readonly #netlink = new Netlink(NETLINK_NETFILTER);
  #last: Promise<unknown> = Promise.resolve();

  /**
   * How many TCP connections each address, of either family, answers, directly or behind a VIP or published port; not those that it has with
   * itself. The table is walked on a thread, once for all: 10 ms and more for its empty buckets alone.
   */
  count(addresses: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const counted = this.#last.then(() => this.#count(addresses));
    this.#last = counted.catch(() => {});
    return counted;
  }

  async #count(addresses: readonly string[]): Promise<ReadonlyMap<string, number>> {
    const counts = new Map(addresses.map((address) => [address, 0]));
    for (const message of await this.#read(addresses)) {
      const answeredBy = openTo(message);
      const count = answeredBy === undefined ? undefined : counts.get(answeredBy);
      if (count !== undefined) counts.set(answeredBy!, count + 1);
    }
    return counts;
  }

  async #read(addresses: readonly string[]): Promise<readonly Message[]> {
    const total = Number(readSysctl('net.netfilter.nf_conntrack_count') ?? 0);
    if (total === 0 || addresses.length === 0) return [];
    const family = addresses.some(isIpv6) ? AF_UNSPEC : AF_INET;
    if (total < manyEntries || addresses.length > fewAddresses) return this.#dump(family);
    try {
      const found: Message[] = [];
      for (const address of addresses)
        found.push(...(await this.#dump(isIpv6(address) ? AF_INET6 : AF_INET, answeredByFilter(address))));
      return found;
    } catch (error) {
      // Kernels before 5.8 filter nothing.
      if (!isFault(error, 'unsupported', 'internal')) throw error;
      return this.#dump(family);
    }
  }

  #dump(family: number, filter: Buffer = Buffer.alloc(0)): Promise<Message[]> {
    const body = Buffer.concat([Buffer.from([family, 0, 0, 0]), filter]);
    return this.#netlink.dumpOnThread({ what: 'counting connections', type: GET, flags: 0, body });
  }

  async close(): Promise<void> {
    await this.#last;
    this.#netlink.close();
  }
}

/** Lets the kernel give only what `address` answers. */
function answeredByFilter(address: string): Buffer {
  const bytes = addressBytes(address);
  const type = isIpv6(address) ? IP6_SOURCE : IP_SOURCE;
  const ends = [attribute(type, bytes), attribute(type + 1, Buffer.alloc(bytes.length))];
  const tuple = nested(CTA.reply, nested(TUPLE_IP, ...ends));
  return Buffer.concat([tuple, nested(CTA.filter, attribute(1, 0), attribute(2, filterBySource))]);
}

/** By an entry's attributes: it is TCP's, and not both ends have closed it, nor one has reset it. */
export function isOpen(attributes: ReadonlyMap<number, Buffer>): boolean {
  const tcp = attributesOf(attributes.get(CTA.protocolInfo) ?? Buffer.alloc(0)).get(INFO_TCP);
  const state = tcp && attributesOf(tcp).get(TCP_STATE)?.[0];
  return state !== undefined && state >= firstOpen && state <= lastOpen;
}

/** Who answers the entry's connection; undefined for what is over, no TCP, or with itself. */
function openTo(message: Message): string | undefined {
  const attributes = attributesOf(message.body, 4);
  if (!isOpen(attributes)) return undefined;
  const answeredBy = sourceOf(attributes.get(CTA.reply));
  return answeredBy === sourceOf(attributes.get(CTA.original)) ? undefined : answeredBy;
}

function sourceOf(tuple: Buffer | undefined): string {
  const ip = tuple && attributesOf(tuple).get(TUPLE_IP);
  const attributes = ip && attributesOf(ip);
  return attributes ? addressText(attributes.get(IP_SOURCE) ?? attributes.get(IP6_SOURCE)) : '';
}

function isIpv6(address: string): boolean {
  return address.includes(':');
}
