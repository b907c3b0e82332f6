/** Ranges and addresses of networks: what is malformed, what is somebody else's, and what a service may ask for. Pure arithmetic. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { type Cidr, contains, formatCidr, overlaps, parseCidr, sizeOf, tryAddress } from '#net/plan/cidr.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { qualifiedName } from '#proto/model/ids.ts';
import type { ClusterNetwork, NetworkAttachment, NetworkSpec, NetworkSubnet } from '#proto/model/network.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { defaultNetwork, defaultVipNetwork } from './addresses.ts';
import { isOn } from './network-usage.ts';

/** Ranges that mean something else everywhere. */
const special: readonly (readonly [string, string])[] = [
  ['0.0.0.0/8', 'the addresses of "this network"'],
  ['127.0.0.0/8', 'the loopback addresses'],
  ['169.254.0.0/16', 'the link-local addresses'],
  ['224.0.0.0/3', 'the multicast and reserved addresses'],
];

/** What is wrong with the subnet by itself, in words. */
export function rangeProblem({ subnet, gateway, ipRange, reserved }: NetworkSubnet): string | undefined {
  const range = exactRange(subnet);
  if (!range) return `"${subnet}" is not an IPv4 range such as 172.28.0.0/16`;
  if (range.prefix < 8 || range.prefix > 29) return `${subnet} has not from 8 to 2^24 addresses`;
  for (const [cidr, what] of special)
    if (overlaps(parseCidr(cidr), range)) return `${subnet} overlaps ${what}, ${cidr}`;
  if (ipRange !== '') {
    const part = exactRange(ipRange);
    if (!part) return `ip_range "${ipRange}" is not an IPv4 range`;
    if (part.prefix < range.prefix || !contains(range, part.base)) return `ip_range ${ipRange} is not within ${subnet}`;
  }
  for (const [what, address] of [['gateway', gateway], ...reserved.map((one) => ['aux_addresses:', one])] as const) {
    const value = tryAddress(address);
    if (address === '') continue;
    if (value === undefined) return `${what} "${address}" is not an IPv4 address`;
    if (!contains(range, value)) return `${what} ${address} is not within ${subnet}`;
  }
  return undefined;
}

/** Whose addresses `subnet` overlaps, in words; undefined: nobody's. A macvlan network is one of the hosts' own. */
export function rangeOwner(
  snapshot: Snapshot,
  networks: Iterable<ClusterNetwork>,
  spec: NetworkSpec,
  subnet: string,
): string | undefined {
  const range = parseCidr(subnet);
  const hits = (cidr: string) => {
    const other = laxRange(cidr);
    return other !== undefined && overlaps(other, range);
  };
  const { cluster } = snapshot;
  const network = cluster?.network || defaultNetwork;
  if (hits(network)) return `the addresses of tasks, ${network}`;
  const vipNetwork = cluster?.vipNetwork || defaultVipNetwork;
  if (hits(vipNetwork)) return `the addresses of services, ${vipNetwork}`;
  for (const other of networks) {
    if (other.spec.name === spec.name) continue;
    const taken = other.spec.subnets.find((one) => hits(one.subnet));
    if (taken) return `network ${other.spec.name}, ${taken.subnet}`;
  }
  for (const node of snapshot.all('node')) {
    if (node.subnet !== '' && hits(node.subnet)) return `the subnet of node ${node.name}, ${node.subnet}`;
    if (node.pinnedSubnet !== '' && hits(node.pinnedSubnet))
      return `the subnet of node ${node.name}, ${node.pinnedSubnet}`;
    if (spec.driver === 'macvlan') continue;
    if (node.link !== '' && hits(node.link)) return `the network that node ${node.name} is on, ${node.link}`;
    if (node.address !== '' && hits(`${node.address}/32`)) return `the address of node ${node.name}, ${node.address}`;
    const foreign = node.foreignNetworks.find(hits);
    if (foreign) return `${foreign}, which node ${node.name} has a route to`;
  }
  return undefined;
}

/** The subnet of a network that an address lies in. */
export function subnetWith(spec: NetworkSpec, address: string): NetworkSubnet | undefined {
  const value = tryAddress(address);
  return value === undefined ? undefined : spec.subnets.find(({ subnet }) => contains(parseCidr(subnet), value));
}

/** Why the network does not have the address for one task alone, in words; undefined: it has. */
export function fixedAddressProblem(
  snapshot: Snapshot,
  network: NetworkSpec,
  service: ServiceSpec,
  { ipv4Address }: NetworkAttachment,
): string | undefined {
  if (tryAddress(ipv4Address) === undefined) return `"${ipv4Address}" is not an IPv4 address`;
  if (network.subnets.length === 0) return `network ${network.name} has no subnet that ${ipv4Address} could be of`;
  const subnet = subnetWith(network, ipv4Address);
  if (!subnet)
    return `${ipv4Address} is not within ${network.subnets.map((one) => one.subnet).join(' or ')} of network ${network.name}`;
  const range = parseCidr(subnet.subnet);
  const value = tryAddress(ipv4Address)!;
  if (value === range.base || value === range.base + sizeOf(range) - 1)
    return `${ipv4Address} is the first or last of ${subnet.subnet}: no host may have it`;
  if (ipv4Address === subnet.gateway) return `${ipv4Address} is the gateway of network ${network.name}`;
  if (subnet.reserved.includes(ipv4Address)) return `${ipv4Address} is set aside by aux_addresses`;
  for (const other of snapshot.all('service')) {
    if (other.removing || (other.spec.name === service.name && other.spec.project === service.project)) continue;
    if (!isOn(other.spec, network.name)) continue;
    if (other.spec.template.networks.some((one) => one.network === network.name && one.ipv4Address === ipv4Address))
      return `${ipv4Address} is the fixed address of service ${qualifiedName(other.spec.project, other.spec.name)}`;
  }
  return undefined;
}

/** As `parseCidr`, and no host bits are set; undefined for anything else. */
function exactRange(text: string): Cidr | undefined {
  const range = laxRange(text);
  return range && formatCidr(range) === text ? range : undefined;
}

function laxRange(text: string): Cidr | undefined {
  try {
    return parseCidr(text);
  } catch (error) {
    if (isFault(error, 'invalid')) return undefined;
    throw error;
  }
}
