/** Forgets the connections of an address whose task is gone: a flow that goes on would reach the address's next owner (FAULTS F27). */
import { type Fault, isFault } from '#proto/kernel/errors.ts';
import { isOpen } from './connections.ts';
import { addressBytes, addressText, attribute, attributesOf, type Message, Netlink, nested } from './netlink.ts';
import { readSysctl } from './sysctl.ts';

const NETLINK_NETFILTER = 12;
const GET = (1 << 8) | 1;
const DELETE = (1 << 8) | 2;
const CTA = { original: 1, reply: 2, id: 12, filter: 25 } as const;
const TUPLE = { ip: 1, protocol: 2 } as const;
const AF_INET = 2;
const filterBySource = 1;
const IPPROTO_UDP = 17;
const NLA_F_NESTED = 0x8000;

/** An entry of the kernel's; the tuples as it gives them. */
export interface Entry {
  readonly original: Buffer;
  readonly reply: Buffer;
  readonly id: Buffer | undefined;
  readonly from: string;
  /** Whom it was begun with: another than who answers, where the destination was translated. */
  readonly to: string;
  readonly answeredBy: string;
  readonly protocol: number;
  /** As isOpen: somebody may wait for an answer. */
  readonly open: boolean;
}

/**
 * What is to be forgotten of an address: `all`: the connections it answers (also behind a VIP) and those it began;
 * `answered-udp`: of the former the flows of datagrams, for TCP ends in its own time; `led`: of the former those that were led to
 * it by a VIP or a published port: the address is a host's, which has others of its own.
 */
export type ForgetScope = 'all' | 'answered-udp' | 'led';

/** From this many entries on they are not read as a whole, unless many addresses are asked for. */
const manyEntries = 20_000;
const fewAddresses = 4;

export class Conntrack {
  readonly #netlink = new Netlink(NETLINK_NETFILTER);
  #queue = new Map<string, ForgetScope>();
  #round: Promise<number> | undefined;
  #last: Promise<unknown> = Promise.resolve();
  /** Hears of what is open and to be forgotten while it still leads somewhere; deleting waits for it. */
  readonly #leaving: (entries: readonly Entry[]) => Promise<unknown>;

  constructor(leaving: (entries: readonly Entry[]) => Promise<unknown> = () => Promise.resolve()) {
    this.#leaving = leaving;
  }

  /**
   * Deletes what the kernel remembers of `address`; resolves when it is gone. The table is walked on a thread, 10 ms and
   * more for its empty buckets alone; whoever comes meanwhile shares the next walk.
   */
  forget(address: string, scope: ForgetScope): Promise<unknown> {
    const before = this.#queue.get(address);
    if (!before || before === 'answered-udp' || scope === 'all') this.#queue.set(address, scope);
    this.#round ??= this.#last.then(() => {
      const queue = this.#queue;
      this.#queue = new Map();
      this.#round = undefined;
      return this.#forgetAll(queue);
    });
    this.#last = this.#round.catch(() => {});
    return this.#round;
  }

  async #forgetAll(scopes: ReadonlyMap<string, ForgetScope>): Promise<number> {
    const entries = (await this.#read(scopes)).filter((entry) => {
      const answered = scopes.get(entry.answeredBy);
      if (answered === 'led') return entry.to !== entry.answeredBy;
      if (answered) return answered !== 'answered-udp' || entry.protocol === IPPROTO_UDP;
      return scopes.get(entry.from) === 'all';
    });
    return this.#delete(entries);
  }

  /**
   * Deletes what is answered by addresses that are strangers': what nobody was there to see leave. How many there were. `strangers`
   * is asked when the table has been read: who comes meanwhile has connections in it, and is none.
   */
  forgetStrangers(strangers: () => (address: string) => boolean): Promise<number> {
    const walk = this.#last.then(async () => {
      if (Number(readSysctl('net.netfilter.nf_conntrack_count') ?? 0) === 0) return 0;
      const entries = await this.#dump();
      const isStranger = strangers();
      return this.#delete(entries.filter((entry) => isStranger(entry.answeredBy)));
    });
    this.#last = walk.catch(() => {});
    return walk;
  }

  /**
   * By their replies: since they were read a client may have begun another connection by a port whose last one had ended. It has
   * the old one's original tuple, often its place in memory, and then its id too; but is answered by somebody else.
   */
  async #delete(entries: readonly Entry[]): Promise<number> {
    await this.#leaving(entries.filter(({ open }) => open));
    const faults = this.#netlink.try(
      entries.map((entry) => ({
        what: `forgetting a connection of ${entry.from}`,
        type: DELETE,
        flags: 0,
        body: Buffer.concat([
          familyHead(),
          attribute(CTA.reply | NLA_F_NESTED, entry.reply),
          ...(entry.id ? [attribute(CTA.id, entry.id)] : []),
        ]),
      })),
    );
    const failed = faults.find((fault): fault is Fault => fault !== undefined && fault.code !== 'not-found');
    if (failed) throw failed;
    return entries.length;
  }

  async #read(scopes: ReadonlyMap<string, ForgetScope>): Promise<Entry[]> {
    const count = Number(readSysctl('net.netfilter.nf_conntrack_count') ?? 0);
    if (count === 0) return [];
    if (count < manyEntries || scopes.size > fewAddresses) return this.#dump();
    const entries: Entry[] = [];
    try {
      for (const [address, scope] of scopes) {
        entries.push(...(await this.#dump(sourceFilter(CTA.reply, address))));
        if (scope === 'all') entries.push(...(await this.#dump(sourceFilter(CTA.original, address))));
      }
      return entries;
    } catch (error) {
      // Kernels before 5.8 filter nothing.
      if (!isFault(error, 'unsupported', 'internal')) throw error;
      return this.#dump();
    }
  }

  async #dump(filter: Buffer = Buffer.alloc(0)): Promise<Entry[]> {
    const body = Buffer.concat([familyHead(), filter]);
    const messages = await this.#netlink.dumpOnThread({ what: 'listing connections', type: GET, flags: 0, body });
    return messages.flatMap(readEntry);
  }

  async close(): Promise<void> {
    await this.#last;
    this.#netlink.close();
  }
}

/** Lets the kernel give only entries whose tuple of that direction comes from `address`. */
function sourceFilter(direction: number, address: string): Buffer {
  const tuple = nested(direction, nested(TUPLE.ip, attribute(1, addressBytes(address)), attribute(2, Buffer.alloc(4))));
  const flags = direction === CTA.original ? [filterBySource, 0] : [0, filterBySource];
  return Buffer.concat([tuple, nested(CTA.filter, ...flags.map((flag, index) => attribute(index + 1, flag)))]);
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
  const addressesOf = (tuple: Buffer) => attributesOf(attributesOf(tuple).get(TUPLE.ip) ?? Buffer.alloc(0));
  const [there, back] = [addressesOf(original), addressesOf(reply)];
  const [from, to, answeredBy] = [there.get(1), there.get(2), back.get(1)].map(addressText) as [string, string, string];
  const [id, open] = [attributes.get(CTA.id), isOpen(attributes)];
  return [{ original, reply, id, from, to, answeredBy, protocol, open }];
}
