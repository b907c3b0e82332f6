/** What nftables is asked without libnftables: the number of its generation, and which tables there are. */
import { attributesOf, Netlink, textOf } from './netlink.ts';

const NETLINK_NETFILTER = 12;
const NFT_MSG_GETTABLE = (10 << 8) | 1;
const NFT_MSG_GETGEN = (10 << 8) | 16;
const NFTA_GEN_ID = 1;
const NFTA_TABLE = { name: 1, flags: 2 } as const;
const NFT_TABLE_F_DORMANT = 1;
/** nfgenmsg: of all families. */
const anyFamily = Buffer.alloc(4);
const headBytes = anyFamily.length;

/** nft's words for the kernel's families. */
export const families: Readonly<Record<number, string>> = {
  1: 'inet',
  2: 'ip',
  3: 'arp',
  5: 'netdev',
  7: 'bridge',
  10: 'ip6',
};

/** A table of anybody's. */
export interface NftTable {
  readonly family: string;
  readonly name: string;
  /** As the kernel has them; 0 for most. */
  readonly flags: number;
}

/** Its chains are there, and no packet comes to them. */
export const isDormant = ({ flags }: NftTable) => (flags & NFT_TABLE_F_DORMANT) !== 0;

export class NftNetlink {
  readonly #netlink = new Netlink(NETLINK_NETFILTER);

  /** It grows by one with every transaction of anybody, so that a change costs one question to notice. */
  generation(): number {
    const answer = this.#netlink.ask({
      what: "reading nftables' generation",
      type: NFT_MSG_GETGEN,
      flags: 0,
      body: anyFamily,
    });
    // One attribute: NFTA_GEN_ID comes first.
    if ((answer.body.readUInt16LE(headBytes + 2) & 0x3fff) !== NFTA_GEN_ID) return -1;
    return answer.body.readUInt32BE(headBytes + 4);
  }

  /** Of all families. Not by `nft -j list tables`: see Nftables.list. */
  tables(): readonly NftTable[] {
    const answers = this.#netlink.dump({
      what: "listing nftables' tables",
      type: NFT_MSG_GETTABLE,
      flags: 0,
      body: anyFamily,
    });
    return answers.map(({ body }) => {
      const attributes = attributesOf(body, headBytes);
      return {
        family: families[body[0] ?? 0] ?? String(body[0]),
        name: textOf(attributes.get(NFTA_TABLE.name)),
        flags: attributes.get(NFTA_TABLE.flags)?.readUInt32BE(0) ?? 0,
      };
    });
  }

  close(): void {
    this.#netlink.close();
  }
}
