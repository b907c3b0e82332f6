/** Links, addresses and neighbours: the requests that make them, the dumps that read them, and who else has changed them. */
import { isFault } from '#proto/kernel/errors.ts';
import { closeFd, errnoOf, MSG_DONTWAIT, openNetlink, receive } from './libc.ts';
import {
  addressBytes,
  addressText,
  attribute,
  attributesOf,
  joinGroup,
  type Message,
  messagesOf,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  nested,
  type Request,
  textOf,
} from './netlink.ts';

export const RTM = {
  newLink: 16,
  deleteLink: 17,
  getLink: 18,
  newAddress: 20,
  deleteAddress: 21,
  getAddress: 22,
  newNeighbour: 28,
  deleteNeighbour: 29,
  getNeighbour: 30,
} as const;
export const IFLA = { address: 1, name: 3, mtu: 4, master: 10, linkInfo: 18, netnsFd: 28 } as const;
const NDA = { address: 1, mac: 2 } as const;
const NTF_USE = 1;
const IFA_F_NODAD = 2;
const RT_SCOPE_LINK = 253;
const NTF_MASTER = 4;
const NUD = { reachable: 0x02, noArp: 0x40, permanent: 0x80 } as const;
/** IFLA_BRPORT_… */
const BRPORT = { hairpin: 4, learning: 8, isolated: 33, locked: 39 } as const;
const AF_BRIDGE = 7;
const AF_INET = 2;
const AF_INET6 = 10;
export const IFF_UP = 1;
const IFF_LOWER_UP = 0x10000;

export interface Link {
  readonly index: number;
  readonly name: string;
  readonly up: boolean;
  readonly mac: string;
  readonly mtu: number;
  /** Index of the bridge it is a port of; 0: none. */
  readonly master: number;
  readonly kind: string;
  /** What only this kind of device has (IFLA_INFO_DATA), by type. */
  readonly details: ReadonlyMap<number, Buffer>;
  /** Of a bridge's port; undefined for other links. */
  readonly port: { readonly isolated: boolean; readonly locked: boolean } | undefined;
}

export function linkBody(index: number, flags: number, change: number, ...attributes: readonly Buffer[]): Buffer {
  const head = Buffer.alloc(16);
  head.writeInt32LE(index, 4);
  head.writeUInt32LE(flags, 8);
  head.writeUInt32LE(change, 12);
  return Buffer.concat([head, ...attributes]);
}

export const macText = (bytes: Buffer) => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(':');
export const macBytes = (mac: string) => Buffer.from(mac.replaceAll(':', ''), 'hex');

export function createBridge(name: string, mac: string): Request {
  return {
    what: `making bridge ${name}`,
    type: RTM.newLink,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(
      0,
      IFF_UP,
      IFF_UP,
      attribute(IFLA.name, name),
      attribute(IFLA.address, macBytes(mac)),
      nested(IFLA.linkInfo, attribute(1, 'bridge')),
    ),
  };
}

/** A veth: `name` here, down, on the bridge; its other end `peer` down in the namespace of `netnsFd`. */
export function createVeth(veth: {
  readonly name: string;
  readonly peer: string;
  readonly peerMac: string;
  readonly netnsFd: number;
  readonly bridge: number;
  readonly mtu: number;
}): Request {
  const other = linkBody(
    0,
    0,
    0,
    attribute(IFLA.name, veth.peer),
    attribute(IFLA.mtu, veth.mtu),
    attribute(IFLA.address, macBytes(veth.peerMac)),
    attribute(IFLA.netnsFd, veth.netnsFd),
  );
  return {
    what: `making link ${veth.name}`,
    type: RTM.newLink,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(
      0,
      0,
      0,
      attribute(IFLA.name, veth.name),
      attribute(IFLA.mtu, veth.mtu),
      attribute(IFLA.master, veth.bridge),
      nested(IFLA.linkInfo, attribute(1, 'veth'), nested(2, nested(1, other))),
    ),
  };
}

/** Brings a link up, and where given sets its MAC or MTU, or makes it a port of a bridge. */
export function setLink(link: {
  readonly index: number;
  readonly mac?: string;
  readonly master?: number;
  readonly mtu?: number;
}): Request {
  return {
    what: `setting link ${link.index}`,
    type: RTM.newLink,
    flags: 0,
    body: linkBody(
      link.index,
      IFF_UP,
      IFF_UP,
      ...(link.mac === undefined ? [] : [attribute(IFLA.address, macBytes(link.mac))]),
      ...(link.master === undefined ? [] : [attribute(IFLA.master, link.master)]),
      ...(link.mtu === undefined ? [] : [attribute(IFLA.mtu, link.mtu)]),
    ),
  };
}

/**
 * Makes a link a port of a bridge that takes frames from `mac` alone, and passes none to other ports: all that tasks say to
 * each other is to go through the rules of their host. With br_netfilter (`bridged`) frames between ports go through them
 * too, and must pass: a VIP is translated while its packet is still on the bridge, and sent back out of the port that it
 * came in by where a task is led to itself.
 */
export function enslave(index: number, bridge: number, mac: string, bridged: boolean): Request[] {
  const flag = (type: number, on: boolean) => attribute(type, Buffer.from([Number(on)]));
  const { hairpin: turn, learning, isolated, locked } = BRPORT;
  const flags = nested(5, flag(turn, true), flag(learning, false), flag(isolated, !bridged), flag(locked, true));
  const hairpin = nested(IFLA.linkInfo, attribute(4, 'bridge'), flags);
  return [
    setLink({ index, master: bridge }),
    {
      what: `setting the bridge port ${index}`,
      type: RTM.newLink,
      flags: 0,
      body: linkBody(index, 0, 0, hairpin),
    },
    {
      what: `letting ${mac} send by the bridge port ${index}`,
      type: RTM.newNeighbour,
      flags: NLM_F_CREATE | NLM_F_REPLACE,
      body: Buffer.concat([neighbourHead(AF_BRIDGE, index, NUD.noArp | NUD.reachable, NTF_MASTER), macAttribute(mac)]),
    },
  ];
}

export function deleteLink(name: string): Request {
  return {
    what: `deleting link ${name}`,
    type: RTM.deleteLink,
    flags: 0,
    body: linkBody(0, 0, 0, attribute(IFLA.name, name)),
  };
}

function readLink(body: Buffer): Link {
  const attributes = attributesOf(body, 16);
  const info = attributesOf(attributes.get(IFLA.linkInfo) ?? Buffer.alloc(0));
  const port = textOf(info.get(4)) === 'bridge' ? attributesOf(info.get(5) ?? Buffer.alloc(0)) : undefined;
  // An older kernel knows nothing of it: what cannot be had is not missed.
  const flag = (type: number) => port?.get(type)?.[0] !== 0;
  return {
    index: body.readInt32LE(4),
    name: textOf(attributes.get(IFLA.name)),
    up: (body.readUInt32LE(8) & IFF_UP) !== 0,
    mac: macText(attributes.get(IFLA.address) ?? Buffer.alloc(0)),
    mtu: attributes.get(IFLA.mtu)?.readUInt32LE(0) ?? 0,
    master: attributes.get(IFLA.master)?.readUInt32LE(0) ?? 0,
    kind: textOf(info.get(1)),
    details: attributesOf(info.get(2) ?? Buffer.alloc(0)),
    port: port && { isolated: flag(BRPORT.isolated), locked: flag(BRPORT.locked) },
  };
}

/** The link of that name, undefined where there is none. */
export function findLink(netlink: Netlink, name: string): Link | undefined {
  try {
    const body = linkBody(0, 0, 0, attribute(IFLA.name, name));
    return readLink(netlink.ask({ what: `looking for link ${name}`, type: RTM.getLink, flags: 0, body }).body);
  } catch (error) {
    if (isFault(error, 'not-found')) return undefined;
    throw error;
  }
}

/** Somebody is at the other end of the cable, as far as the link can tell. */
export function hasCarrier(netlink: Netlink, index: number): boolean {
  const request = { what: `looking at link ${index}`, type: RTM.getLink, flags: 0, body: linkBody(index, 0, 0) };
  try {
    return (netlink.ask(request).body.readUInt32LE(8) & IFF_LOWER_UP) !== 0;
  } catch (error) {
    if (isFault(error, 'not-found')) return false;
    throw error;
  }
}

export function listLinks(netlink: Netlink): Link[] {
  const request = { what: 'listing links', type: RTM.getLink, flags: 0, body: linkBody(0, 0, 0) };
  return netlink.dump(request).map((message) => readLink(message.body));
}

function addressBody(index: number, cidr: string): Buffer {
  const [address = '', prefix] = cidr.split('/');
  const head = Buffer.alloc(8);
  head[0] = address.includes(':') ? AF_INET6 : AF_INET;
  head[1] = Number(prefix);
  // Nobody else has it: others need not be asked, and it serves at once.
  head[2] = address.includes(':') ? IFA_F_NODAD : 0;
  head.writeUInt32LE(index, 4);
  const bytes = addressBytes(address);
  return Buffer.concat([head, attribute(2, bytes), attribute(1, bytes)]);
}

/** Gives a link an address, `a.b.c.d/n` or IPv6. */
export function addAddress(index: number, cidr: string): Request {
  const what = `adding address ${cidr}`;
  return { what, type: RTM.newAddress, flags: NLM_F_CREATE | NLM_F_REPLACE, body: addressBody(index, cidr) };
}

export function deleteAddress(index: number, cidr: string): Request {
  return { what: `deleting address ${cidr}`, type: RTM.deleteAddress, flags: 0, body: addressBody(index, cidr) };
}

/** All addresses that are good beyond their link, IPv4 first, with the index of the link. */
export function listAddresses(netlink: Netlink): { readonly index: number; readonly cidr: string }[] {
  const list = (family: number) => {
    const body = Buffer.alloc(8);
    body[0] = family;
    return netlink.dump({ what: 'listing addresses', type: RTM.getAddress, flags: 0, body });
  };
  return [...list(AF_INET), ...list(AF_INET6)].flatMap(({ body }) => {
    if (body[0] === AF_INET6 && body[3] === RT_SCOPE_LINK) return [];
    const attributes = attributesOf(body, 8);
    const address = addressText(attributes.get(2) ?? attributes.get(1));
    return [{ index: body.readUInt32LE(4), cidr: `${address}/${body[1]}` }];
  });
}

const macAttribute = (mac: string) => attribute(NDA.mac, macBytes(mac));
const familyOf = (address: string) => (address.includes(':') ? AF_INET6 : AF_INET);

function neighbourHead(family: number, index: number, state: number, flags: number): Buffer {
  const head = Buffer.alloc(12);
  head[0] = family;
  head.writeInt32LE(index, 4);
  head.writeUInt16LE(state, 8);
  head[10] = flags;
  return head;
}

/** Who has an address on a link is a matter of fact, and nobody's to claim. */
export function fixNeighbour(index: number, address: string, mac: string): Request {
  const bytes = attribute(NDA.address, addressBytes(address));
  return {
    what: `fixing ${address} to ${mac}`,
    type: RTM.newNeighbour,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: Buffer.concat([neighbourHead(familyOf(address), index, NUD.permanent, 0), bytes, macAttribute(mac)]),
  };
}

/** Has the kernel find out, or make sure of, the MAC of an address on a link. */
export function askNeighbour(index: number, address: string): Request {
  const head = Buffer.alloc(12);
  head[0] = AF_INET;
  head.writeInt32LE(index, 4);
  head[10] = NTF_USE;
  return {
    what: `asking for ${address}`,
    type: RTM.newNeighbour,
    flags: NLM_F_CREATE,
    body: Buffer.concat([head, attribute(NDA.address, addressBytes(address))]),
  };
}

/** The MAC of an IPv4 address on a link, as far as the kernel knows it now. */
export function neighbourMac(netlink: Netlink, link: number, address: string): string | undefined {
  const body = Buffer.concat([neighbourHead(AF_INET, link, 0, 0), attribute(NDA.address, addressBytes(address))]);
  try {
    const answer = netlink.ask({ what: `looking for ${address}`, type: RTM.getNeighbour, flags: 0, body });
    const mac = attributesOf(answer.body, 12).get(NDA.mac);
    return mac?.length === 6 ? macText(mac) : undefined;
  } catch (error) {
    if (isFault(error, 'not-found')) return undefined;
    throw error;
  }
}

/** The neighbours that have a MAC: IPv4 address to MAC. */
export function listNeighbours(netlink: Netlink): ReadonlyMap<string, string> {
  const body = Buffer.alloc(12);
  body[0] = AF_INET;
  const macs = new Map<string, string>();
  for (const message of netlink.dump({ what: 'listing neighbours', type: RTM.getNeighbour, flags: 0, body })) {
    const attributes = attributesOf(message.body, 12);
    const mac = attributes.get(NDA.mac);
    if (mac?.length === 6 && mac.some((byte) => byte !== 0))
      macs.set(addressText(attributes.get(NDA.address)), macText(mac));
  }
  return macs;
}

/** Groups of the kernel's notifications. */
export const linkGroups = [
  1 /* links */, 4 /* traffic control */, 5 /* IPv4 addresses */, 7 /* IPv4 routes */, 8 /* IPv4 rules */,
  9 /* IPv6 addresses */, 11 /* IPv6 routes */,
] as const;
export const neighbourGroups = [3] as const;

/** Notices changes that are not our own doing. */
export class Monitor {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(1 << 16);
  readonly #own: ReadonlySet<number>;
  readonly #concerns: (message: Message) => boolean;

  /** `own`: port ids of the sockets whose changes are not news. `concerns`: whether another's change is. */
  constructor(
    groups: readonly number[],
    own: ReadonlySet<number>,
    concerns: (message: Message) => boolean = () => true,
  ) {
    this.#fd = openNetlink(0, 1 << 20).fd;
    this.#own = own;
    this.#concerns = concerns;
    for (const group of groups) joinGroup(this.#fd, group);
  }

  /** Takes what has been heard since; true when it, or what was lost of it, may concern us. */
  disturbed(): boolean {
    let news = false;
    for (;;) {
      try {
        const length = receive(this.#fd, this.#buffer, MSG_DONTWAIT);
        for (const message of messagesOf(this.#buffer.subarray(0, length))) {
          if (!this.#own.has(message.portId) && this.#concerns(message)) news = true;
        }
      } catch (error) {
        if (errnoOf(error) === 'EAGAIN') return news;
        if (errnoOf(error) !== 'ENOBUFS') throw error;
        news = true;
      }
    }
  }

  close(): void {
    closeFd(this.#fd);
  }
}
