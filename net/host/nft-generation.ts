/** The number of nftables' generation: it grows by one with every transaction of anybody, so that a change costs one question to notice. */
import { Netlink } from './netlink.ts';

const NETLINK_NETFILTER = 12;
const NFT_MSG_GETGEN = (10 << 8) | 16;
const NFTA_GEN_ID = 1;

export class NftGeneration {
  readonly #netlink = new Netlink(NETLINK_NETFILTER);

  read(): number {
    const answer = this.#netlink.ask({
      what: "reading nftables' generation",
      type: NFT_MSG_GETGEN,
      flags: 0,
      body: Buffer.alloc(4),
    });
    // nfgenmsg (4 bytes), then one attribute: NFTA_GEN_ID comes first.
    if ((answer.body.readUInt16LE(6) & 0x3fff) !== NFTA_GEN_ID) return -1;
    return answer.body.readUInt32BE(8);
  }

  close(): void {
    this.#netlink.close();
  }
}
