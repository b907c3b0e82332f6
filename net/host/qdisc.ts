/** Limits on what a link sends: a token bucket in the kernel's traffic control. */
import {
  attribute,
  attributesOf,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_REPLACE,
  nested,
  type Request,
  textOf,
} from './netlink.ts';

const RTM = { newQdisc: 36, getQdisc: 38 } as const;
const TCA = { kind: 1, options: 2 } as const;
const TBF = { parameters: 1, rate64: 4, burst: 6 } as const;
const TC_H_ROOT = 0xffffffff;
const TC_LINKLAYER_ETHERNET = 1;
/** Ours among the root qdiscs ("47:" in tc's words). */
const handle = 0x00470000;
/** A packet as large as they come from a task: many segments that the card would cut. */
const largestPacket = 65_536;
/** How long may be sent at full speed after a pause, and how long a packet may wait. */
const burstSeconds = 0.01;
const queueSeconds = 0.05;

/** Has a link send no more than that, in place of what limits it now. */
export function limit(index: number, bitsPerSecond: number): Request {
  const rate = Math.max(1, Math.floor(bitsPerSecond / 8));
  const burst = Math.max(largestPacket, Math.ceil(rate * burstSeconds));
  const parameters = Buffer.alloc(36);
  parameters[1] = TC_LINKLAYER_ETHERNET;
  parameters.writeUInt32LE(Math.min(rate, 0xffffffff), 8);
  parameters.writeUInt32LE(burst + Math.ceil(rate * queueSeconds), 24);
  const rate64 = Buffer.alloc(8);
  rate64.writeBigUInt64LE(BigInt(rate));
  return {
    what: `limiting link ${index} to ${bitsPerSecond} bit/s`,
    type: RTM.newQdisc,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: Buffer.concat([
      head(index, handle, TC_H_ROOT),
      attribute(TCA.kind, 'tbf'),
      nested(
        TCA.options,
        attribute(TBF.parameters, parameters),
        attribute(TBF.burst, burst),
        ...(rate > 0xffffffff ? [attribute(TBF.rate64, rate64)] : []),
      ),
    ]),
  };
}

/** What links are limited to, in bits per second, by index. */
export function listLimits(netlink: Netlink): ReadonlyMap<number, number> {
  const limits = new Map<number, number>();
  const request = { what: 'listing limits', type: RTM.getQdisc, flags: 0, body: head(0, 0, 0) };
  for (const { body } of netlink.dump(request)) {
    if (body.readUInt32LE(12) !== TC_H_ROOT) continue;
    const attributes = attributesOf(body, 20);
    if (textOf(attributes.get(TCA.kind)) !== 'tbf') continue;
    const options = attributesOf(attributes.get(TCA.options) ?? Buffer.alloc(0));
    const rate64 = options.get(TBF.rate64)?.readBigUInt64LE(0);
    const rate = rate64 ?? BigInt(options.get(TBF.parameters)?.readUInt32LE(8) ?? 0);
    limits.set(body.readInt32LE(4), Number(rate) * 8);
  }
  return limits;
}

/** struct tcmsg of include/uapi/linux/rtnetlink.h. */
function head(index: number, handle: number, parent: number): Buffer {
  const body = Buffer.alloc(20);
  body.writeInt32LE(index, 4);
  body.writeUInt32LE(handle, 8);
  body.writeUInt32LE(parent, 12);
  return body;
}
