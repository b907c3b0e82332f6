/** What a node says of itself, and whether it may be believed. Pure. */
import { tryAddress6 } from '#net/plan/address6.ts';
import { formatCidr, parseCidr, tryAddress } from '#net/plan/cidr.ts';
import { pinnedSubnetProblem } from '#net/plan/ipam.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Node } from '#proto/model/node.ts';
import { isResourceKind, isResourceName } from '#proto/model/resources.ts';

/** What of its record is the node's to say: the rest is the control plane's. */
const said = [
  'platform',
  'capacity',
  'address',
  'link',
  'address6',
  'pinnedSubnet',
  'foreignNetworks',
  'wireguardKey',
  'bootId',
  'agentVersion',
  'kernel',
  'components',
  'runtimes',
  'authority',
] as const satisfies readonly (keyof Node)[];

export type NodeDescription = Pick<Node, (typeof said)[number]>;

/** Longest description of a machine, as JSON. */
const descriptionChars = 16_384;
/** Most networks of a host that are taken. */
const mostNetworks = 200;

/** The part of a record that is the node's to say. It goes into the store and to all other nodes, whose kernels act on it. Faults: `invalid`. */
export function descriptionOf(node: Node): NodeDescription {
  const description = Object.fromEntries(said.map((key) => [key, node[key]])) as unknown as NodeDescription;
  const { address, link, address6, pinnedSubnet, foreignNetworks, wireguardKey } = description;
  if (address !== '' && tryAddress(address) === undefined)
    refuse(address, 'is not an IPv4 address', 'start the agent with --advertise ADDRESS');
  if (link !== '' && !(link.startsWith(`${address}/`) && isRange(link)))
    refuse(link, `is not the link of ${address}`, 'write it as ADDRESS/PREFIX');
  if (address6 !== '' && tryAddress6(address6) === undefined) refuse(address6, 'is not an IPv6 address');
  const problem = pinnedSubnet === '' ? undefined : pinnedSubnetProblem(pinnedSubnet);
  if (problem !== undefined) refuse(pinnedSubnet, `${problem}, and no subnet`, 'start the agent with --subnet CIDR');
  if (foreignNetworks.length > mostNetworks)
    throw new Fault('invalid', `the node tells more than ${mostNetworks} networks of its host`);
  for (const network of foreignNetworks) if (!isRange(network, true)) refuse(network, 'is not an IPv4 range');
  if (wireguardKey !== '' && !/^[A-Za-z0-9+/]{43}=$/.test(wireguardKey))
    refuse(wireguardKey, 'is not a public key of WireGuard');
  if (description.authority !== undefined && !/^[A-Za-z0-9_-]{0,43}$/.test(description.authority))
    refuse(description.authority, 'is not the hash of a certificate');
  for (const { kind, count, names } of description.capacity.generic) {
    if (!isResourceKind(kind)) refuse(kind, 'is not a kind of resources');
    if (names.length > 0 && (names.length !== count || !names.every(isResourceName)))
      refuse(names.join(';'), `does not name ${count} ${kind}`);
  }
  if (JSON.stringify(description).length > descriptionChars)
    throw new Fault('invalid', `the node describes itself in more than ${descriptionChars} characters`);
  return description;
}

function isRange(text: string, exact = false): boolean {
  try {
    const range = formatCidr(parseCidr(text));
    return !exact || range === text;
  } catch (error) {
    if (isFault(error, 'invalid')) return false;
    throw error;
  }
}

function refuse(text: string, why: string, remedy = 'upgrade the agent'): never {
  throw new Fault('invalid', `"${text.slice(0, 50)}" ${why}`, { remedy });
}
