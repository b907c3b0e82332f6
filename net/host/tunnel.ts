/** The VXLAN device of our tunnels, and what it is told of peers: requests and dumps. */
import { type Tunnel, type TunnelDevice, tunnelId, tunnelName, tunnelPort } from '#net/plan/tunnel.ts';
import {
  addressBytes,
  addressText,
  attribute,
  attributesOf,
  type Message,
  type Netlink,
  NLM_F_CREATE,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  nested,
  type Request,
} from './netlink.ts';
import { IFF_UP, IFLA, type Link, linkBody, listAddresses, macBytes, macText, RTM } from './rtnetlink.ts';

const AF_INET = 2;
const AF_INET6 = 10;
const AF_BRIDGE = 7;
const VXLAN = { id: 1, local: 4, learning: 7, port: 15 } as const;
const NDA = { destination: 1, mac: 2, index: 8 } as const;
const NUD_PERMANENT = 0x80;
const NTF_SELF = 2;

/** The device, up; it learns no addresses from packets. */
export function createTunnel(device: TunnelDevice): Request {
  const port = Buffer.alloc(2);
  port.writeUInt16BE(tunnelPort);
  return {
    what: `making the tunnel ${tunnelName}`,
    type: RTM.newLink,
    flags: NLM_F_CREATE | NLM_F_EXCL,
    body: linkBody(
      0,
      IFF_UP,
      IFF_UP,
      attribute(IFLA.name, tunnelName),
      attribute(IFLA.mtu, device.mtu),
      attribute(IFLA.address, macBytes(device.mac)),
      nested(
        IFLA.linkInfo,
        attribute(1, 'vxlan'),
        nested(
          2,
          attribute(VXLAN.id, tunnelId),
          attribute(VXLAN.local, addressBytes(device.local)),
          attribute(VXLAN.learning, Buffer.from([0])),
          attribute(VXLAN.port, port),
        ),
      ),
    ),
  };
}

/** True for a device that is ours: the make that createTunnel gives, from whatever address. */
export function isTunnel({ kind, details }: Link): boolean {
  return (
    kind === 'vxlan' &&
    details.get(VXLAN.id)?.readUInt32LE(0) === tunnelId &&
    details.get(VXLAN.port)?.readUInt16BE(0) === tunnelPort &&
    details.get(VXLAN.learning)?.[0] === 0
  );
}

/** The device, and all that it has been told. */
export function readTunnel(netlink: Netlink, link: Link): Tunnel {
  const { index, mac, mtu, up, details } = link;
  const addresses = listAddresses(netlink).flatMap((item) => (item.index === index ? [item.cidr] : []));
  const device = { local: addressText(details.get(VXLAN.local)), mac, mtu, up, addresses };
  return {
    device,
    forwarding: new Map(
      permanent(netlink, AF_BRIDGE, index).flatMap(({ mac, destination }) =>
        destination === '' ? [] : [[mac, destination]],
      ),
    ),
    neighbours: new Map(
      [AF_INET, AF_INET6].flatMap((family) =>
        permanent(netlink, family, index).flatMap(({ mac, destination }) =>
          destination.startsWith('ff') ? [] : [[destination, mac] as const],
        ),
      ),
    ),
  };
}

function permanent(netlink: Netlink, family: number, index: number) {
  const head = Buffer.alloc(12);
  head[0] = family;
  const body = Buffer.concat([head, attribute(NDA.index, index)]);
  const what = 'listing the peers of the tunnel';
  return netlink.dump({ what, type: RTM.getNeighbour, flags: 0, body }).flatMap(({ body }) => {
    const attributes = attributesOf(body, 12);
    const mac = attributes.get(NDA.mac);
    if (body.readInt32LE(4) !== index || !(body.readUInt16LE(8) & NUD_PERMANENT) || !mac) return [];
    return [{ mac: macText(mac), destination: addressText(attributes.get(NDA.destination)) }];
  });
}

/** True for news of a neighbour, or a forwarding entry, of that link. */
export function isNeighbourOf({ type, body }: Message, index: number | undefined): boolean {
  return (type === RTM.newNeighbour || type === RTM.deleteNeighbour) && body.readInt32LE(4) === index;
}

/** Frames for `mac` are sent to `underlay`; in place of what was known of it. */
export function addForwarding(index: number, mac: string, underlay: string): Request {
  const what = `sending ${mac} to ${underlay}`;
  return {
    what,
    type: RTM.newNeighbour,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: entry(AF_BRIDGE, index, mac, underlay),
  };
}

export function removeForwarding(index: number, mac: string, underlay: string): Request {
  const what = `sending ${mac} to nobody`;
  return { what, type: RTM.deleteNeighbour, flags: 0, body: entry(AF_BRIDGE, index, mac, underlay) };
}

/** The peer's end has that MAC, now and always. */
export function addNeighbour(index: number, address: string, mac: string): Request {
  const what = `adding neighbour ${address}`;
  return {
    what,
    type: RTM.newNeighbour,
    flags: NLM_F_CREATE | NLM_F_REPLACE,
    body: entry(familyOf(address), index, mac, address),
  };
}

export function removeNeighbour(index: number, address: string, mac: string): Request {
  const what = `removing neighbour ${address}`;
  return { what, type: RTM.deleteNeighbour, flags: 0, body: entry(familyOf(address), index, mac, address) };
}

const familyOf = (address: string) => (address.includes(':') ? AF_INET6 : AF_INET);

function entry(family: number, index: number, mac: string, destination: string): Buffer {
  const head = Buffer.alloc(12);
  head[0] = family;
  head.writeInt32LE(index, 4);
  head.writeUInt16LE(NUD_PERMANENT, 8);
  head[10] = family === AF_BRIDGE ? NTF_SELF : 0;
  return Buffer.concat([
    head,
    attribute(NDA.destination, addressBytes(destination)),
    attribute(NDA.mac, macBytes(mac)),
  ]);
}
