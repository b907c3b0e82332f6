/** The kernel's own opinion of a way: which route it takes to an address, whose route that is, and the size it promises. */

import { errnoOf } from '#net/host/libc.ts';
import { addressBytes, addressText, attribute, attributesOf, type Netlink } from '#net/host/netlink.ts';
import { isFault } from '#proto/kernel/errors.ts';

const RTM_GETROUTE = 26;
const AF_INET = 2;
const RTM_F_LOOKUP_TABLE = 0x1000;
const RTM_F_FIB_MATCH = 0x2000;
const RTA = { destination: 1, source: 2, incoming: 3, oif: 4, gateway: 5, metrics: 8, table: 15, mark: 16 } as const;
const RTAX_MTU = 2;
const typeNames = [
  'unspec',
  'unicast',
  'local',
  'broadcast',
  'anycast',
  'multicast',
  'blackhole',
  'unreachable',
  'prohibit',
];

export interface Way {
  readonly type: string;
  /** The route that was found: `10.192.2.0/24`, `default`. */
  readonly route: string;
  readonly gateway: string;
  readonly link: number;
  readonly table: number;
  /** rtm_protocol: 0x47 is ours. */
  readonly protocol: number;
  /** 0: the link's. */
  readonly mtu: number;
}

export interface Question {
  readonly to: string;
  readonly from?: string;
  /** As a packet that comes in by this link. */
  readonly incoming?: number;
  readonly mark?: number;
}

/** The route that packets take, or the errno's name (`ENETUNREACH`, `EHOSTUNREACH`, …) where there is none. */
export function wayOf(netlink: Netlink, question: Question): Way | string {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head[1] = 32;
  if (question.from !== undefined) head[2] = 32;
  // The matched route of an incoming packet is not told: only where it would go.
  head.writeUInt32LE(RTM_F_LOOKUP_TABLE | (question.incoming === undefined ? RTM_F_FIB_MATCH : 0), 8);
  const body = Buffer.concat([
    head,
    attribute(RTA.destination, addressBytes(question.to)),
    ...(question.from === undefined ? [] : [attribute(RTA.source, addressBytes(question.from))]),
    ...(question.incoming === undefined ? [] : [attribute(RTA.incoming, question.incoming)]),
    ...(question.mark === undefined ? [] : [attribute(RTA.mark, question.mark)]),
  ]);
  try {
    const { body: answer } = netlink.ask({ what: `the way to ${question.to}`, type: RTM_GETROUTE, flags: 0, body });
    const attributes = attributesOf(answer, 12);
    const metrics = attributes.get(RTA.metrics);
    const prefix = answer[1] ?? 0;
    return {
      type: typeNames[answer[7] ?? 0] ?? `type ${answer[7]}`,
      route: prefix === 0 ? 'default' : `${addressText(attributes.get(RTA.destination))}/${prefix}`,
      gateway: addressText(attributes.get(RTA.gateway)),
      link: attributes.get(RTA.oif)?.readUInt32LE(0) ?? 0,
      table: attributes.get(RTA.table)?.readUInt32LE(0) ?? answer[4] ?? 0,
      protocol: answer[5] ?? 0,
      mtu: (metrics && attributesOf(metrics).get(RTAX_MTU)?.readUInt32LE(0)) ?? 0,
    };
  } catch (error) {
    if (!isFault(error)) throw error;
    return errnoOf(error) ?? 'EIO';
  }
}
