/** Evidence of the kernel itself: by which rules of nftables, ours and others', single packets pass, and which one drops them. */
import { closeFd, errnoOf, MSG_DONTWAIT, openNetlink, receive } from '#net/host/libc.ts';
import { addressText, attributesOf, joinGroup, messagesOf, textOf } from '#net/host/netlink.ts';
import { families } from '#net/host/nft-netlink.ts';
import { Nftables } from '#net/host/nftables.ts';
import { isFault } from '#proto/kernel/errors.ts';

const NETLINK_NETFILTER = 12;
const NFNLGRP_NFTRACE = 9;
const NFT_MSG_TRACE = (10 << 8) | 17;
const TRACE = {
  table: 1,
  chain: 2,
  handle: 3,
  type: 4,
  verdict: 5,
  id: 6,
  network: 8,
  transport: 9,
  iif: 10,
  oif: 12,
  policy: 16,
} as const;
const types = ['', 'policy', 'return', 'rule'] as const;
/** After defragmentation, before whatever may drop. */
const priority = -399;

/** One rule, or the end of one chain, that a packet met. */
export interface Met {
  /** The same for all that one packet meets on one of its ways through the host. */
  readonly packet: number;
  /** `inet filter`. */
  readonly table: string;
  readonly chain: string;
  /** `policy`: no rule of the base chain decided. */
  readonly type: 'rule' | 'policy' | 'return';
  /** Of a rule: its number in the chain, and its text once looked up. */
  readonly handle: string;
  readonly verdict: string;
  /** Where it is told: the packet as it was then. */
  readonly header: Header | undefined;
}

export interface Header {
  readonly source: string;
  readonly destination: string;
  readonly protocol: number;
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly incoming: number;
  readonly outgoing: number;
}

/**
 * Traces packets that match `matches` (nft expressions) from `start` to `close`. The table that marks them has an owner: the
 * kernel removes it with our socket, however this process ends.
 */
export class NftTrace {
  readonly #nftables = new Nftables();
  readonly #table: string;
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(1 << 16);

  constructor(table: string) {
    this.#table = table;
    this.#fd = openNetlink(NETLINK_NETFILTER, 1 << 20).fd;
    joinGroup(this.#fd, NFNLGRP_NFTRACE);
  }

  /** Fault('invalid') where this kernel or nft knows no such table. */
  async start(matches: readonly string[]): Promise<void> {
    const rules = matches.map((match) => `${match} meta nftrace set 1;\n`).join('');
    const chains = ['prerouting', 'output'].map(
      (hook) => `chain ${hook} {\ntype filter hook ${hook} priority ${priority}; policy accept;\n${rules}}\n`,
    );
    await this.#nftables.run(`table ip ${this.#table} {\nflags owner;\n${chains.join('')}}\n`);
  }

  /** What has been told since; nothing is waited for. */
  read(): Met[] {
    const met: Met[] = [];
    for (;;) {
      let length: number;
      try {
        length = receive(this.#fd, this.#buffer, MSG_DONTWAIT);
      } catch (error) {
        if (errnoOf(error) === 'EAGAIN') return met;
        if (errnoOf(error) === 'ENOBUFS') continue;
        throw error;
      }
      for (const message of messagesOf(Buffer.from(this.#buffer.subarray(0, length)))) {
        if (message.type !== NFT_MSG_TRACE) continue;
        const one = readTrace(message.body);
        if (one && one.table !== `ip ${this.#table}`) met.push(one);
      }
    }
  }

  /** The texts of rules, by table, chain and handle as in `describeMet`. */
  async rules(met: readonly Met[]): Promise<ReadonlyMap<string, string>> {
    const texts = new Map<string, string>();
    const chains = new Set(met.map(({ table, chain }) => `${table} ${chain}`));
    for (const chain of chains) {
      let listing: string;
      try {
        listing = await this.#nftables.text(`list chain ${chain}`);
      } catch (error) {
        if (isFault(error, 'invalid')) continue; // Gone meanwhile.
        throw error;
      }
      for (const [, text, handle] of listing.matchAll(/^\s*(\S.*?) # handle (\d+)$/gm))
        if (text && handle && !text.endsWith('{')) texts.set(`${chain} ${handle}`, text.trim());
    }
    return texts;
  }

  async close(): Promise<void> {
    closeFd(this.#fd);
    await this.#nftables.close();
  }
}

/** `rule "tcp dport 81 drop" of chain input, table inet filter`. */
export function describeMet(met: Met, texts: ReadonlyMap<string, string>): string {
  const text = texts.get(`${met.table} ${met.chain} ${met.handle}`);
  const what = met.type === 'policy' ? 'the policy' : text ? `the rule "${text}"` : `rule ${met.handle}`;
  return `${what} of chain ${met.chain} in table ${met.table}`;
}

function readTrace(body: Buffer): Met | undefined {
  const attributes = attributesOf(body, 4);
  const number = (type: number) => attributes.get(type)?.readUInt32BE(0);
  const type = types[number(TRACE.type) ?? 0];
  if (!type) return undefined;
  return {
    packet: number(TRACE.id) ?? 0,
    table: `${families[body[0] ?? 0] ?? body[0]} ${textOf(attributes.get(TRACE.table))}`,
    chain: textOf(attributes.get(TRACE.chain)),
    type,
    handle: String(attributes.get(TRACE.handle)?.readBigUInt64BE(0) ?? ''),
    verdict:
      type === 'policy' ? (number(TRACE.policy) === 0 ? 'drop' : 'accept') : readVerdict(attributes.get(TRACE.verdict)),
    header: readHeader(
      attributes.get(TRACE.network),
      attributes.get(TRACE.transport),
      number(TRACE.iif),
      number(TRACE.oif),
    ),
  };
}

function readVerdict(attribute: Buffer | undefined): string {
  if (!attribute) return 'continue';
  const parts = attributesOf(attribute);
  const chain = textOf(parts.get(2));
  const code = parts.get(1)?.readInt32BE(0) ?? -1;
  const names: Readonly<Record<number, string>> = {
    0: 'drop',
    1: 'accept',
    2: 'stolen',
    3: 'queue',
    4: 'repeat',
    [-1]: 'continue',
    [-2]: 'break',
    [-3]: `jump ${chain}`,
    [-4]: `goto ${chain}`,
    [-5]: 'return',
  };
  return names[code] ?? String(code);
}

function readHeader(network: Buffer | undefined, transport: Buffer | undefined, iif = 0, oif = 0): Header | undefined {
  if (!network || network.length < 20) return undefined;
  const protocol = network[9] ?? 0;
  const ports = (protocol === 6 || protocol === 17) && transport && transport.length >= 4;
  return {
    source: addressText(network.subarray(12, 16)),
    destination: addressText(network.subarray(16, 20)),
    protocol,
    sourcePort: ports ? transport.readUInt16BE(0) : 0,
    destinationPort: ports ? transport.readUInt16BE(2) : 0,
    incoming: iif,
    outgoing: oif,
  };
}
