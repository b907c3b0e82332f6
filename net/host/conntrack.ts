/** Forgets the connections of an address whose task is gone: a flow that goes on would reach the address's next owner (FAULTS F27). */
import { type Fault, isFault } from '#proto/kernel/errors.ts';
import { addressBytes, addressText, attribute, attributesOf, type Message, Netlink, nested } from './netlink.ts';

const NETLINK_NETFILTER = 12;
const GET = (1 << 8) | 1;
const DELETE = (1 << 8) | 2;
const CTA = { original: 1, reply: 2, id: 12, filter: 25 } as const;
const TUPLE = { ip: 1, protocol: 2 } as const;
const AF_INET = 2;
const filterBySource = 1;
const IPPROTO_UDP = 17;
const NLA_F_NESTED = 0x8000;

interface Entry {
  readonly original: Buffer;
  readonly id: Buffer | undefined;
  readonly from: string;
  readonly answeredBy: string;
  readonly protocol: number;
}

export class Conntrack {
  readonly #netlink = new Netlink(NETLINK_NETFILTER);
  #filters = true;

  /**
   * Deletes the entries of connections that `address` answers (also behind a VIP) and, unless `only` is 'answered-udp',
   * of those it began. Returns how many. With 'answered-udp' just UDP flows go: TCP ends in its own time.
   */
  forget(address: string, only: 'all' | 'answered-udp' = 'all'): number {
    const entries = [
      ...this.#find(CTA.reply, address).filter((entry) => entry.answeredBy === address),
      ...(only === 'all' ? this.#find(CTA.original, address).filter((entry) => entry.from === address) : []),
    ].filter((entry) => only === 'all' || entry.protocol === IPPROTO_UDP);
    const faults = this.#netlink.try(
      entries.map((entry) => ({
        what: `forgetting a connection of ${address}`,
        type: DELETE,
        flags: 0,
        body: Buffer.concat([
          familyHead(),
          attribute(CTA.original | NLA_F_NESTED, entry.original),
          ...(entry.id ? [attribute(CTA.id, entry.id)] : []),
        ]),
      })),
    );
    const failed = faults.find((fault): fault is Fault => fault !== undefined && fault.code !== 'not-found');
    if (failed) throw failed;
    return entries.length;
  }

  #find(direction: number, address: string): Entry[] {
    const what = 'listing connections';
    if (this.#filters) {
      const tuple = nested(
        direction,
        nested(TUPLE.ip, attribute(1, addressBytes(address)), attribute(2, Buffer.alloc(4))),
      );
      const flags = direction === CTA.original ? [filterBySource, 0] : [0, filterBySource];
      const filter = nested(CTA.filter, ...flags.map((flag, index) => attribute(index + 1, flag)));
      try {
        return this.#netlink
          .dump({ what, type: GET, flags: 0, body: Buffer.concat([familyHead(), tuple, filter]) })
          .flatMap(readEntry);
      } catch (error) {
        // Kernels before 5.8 filter nothing: we do, having read it all.
        if (!isFault(error, 'unsupported', 'internal')) throw error;
        this.#filters = false;
      }
    }
    return this.#netlink.dump({ what, type: GET, flags: 0, body: familyHead() }).flatMap(readEntry);
  }

  close(): void {
    this.#netlink.close();
  }
}

function familyHead(): Buffer {
  return Buffer.from([AF_INET, 0, 0, 0]);
}

function readEntry(message: Message): Entry[] {
  const attributes = attributesOf(message.body, 4);
  const original = attributes.get(CTA.original);
  const reply = attributes.get(CTA.reply);
  if (!original || !reply) return [];
  const protocol = attributesOf(attributesOf(original).get(TUPLE.protocol) ?? Buffer.alloc(0)).get(1)?.[0] ?? 0;
  const source = (tuple: Buffer) =>
    addressText(attributesOf(attributesOf(tuple).get(TUPLE.ip) ?? Buffer.alloc(0)).get(1));
  return [{ original, id: attributes.get(CTA.id), from: source(original), answeredBy: source(reply), protocol }];
}
