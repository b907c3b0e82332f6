/** The plan speaks of IPv4 addresses; each family of nftables has its own words for them, and its own table. */

import { containsAddress, formatAddress, parseCidr } from './cidr.ts';
import { embed6 } from './cidr6.ts';

export type FamilyName = 'ip' | 'ip6';

export interface Family {
  readonly name: FamilyName;
  /** What has that IPv4 address is called this; undefined: it has no address of this family. */
  address(ipv4: string): string | undefined;
  /** As address, of a range that lies within the cluster's. */
  range(cidr: string): string;
}

export const ip: Family = { name: 'ip', address: (ipv4) => ipv4, range: (cidr) => cidr };

/** IPv6: tasks and VIPs by embedding, hosts by what they say their address is; nothing else has any. */
export function ip6(cluster: {
  readonly network: string;
  readonly vipNetwork: string;
  readonly network6: string;
  readonly hosts: ReadonlyMap<string, string>;
}): Family {
  const { network, vipNetwork, network6, hosts } = cluster;
  return {
    name: 'ip6',
    address(ipv4) {
      if (containsAddress(network, ipv4) || containsAddress(vipNetwork, ipv4)) return embed6(network6, ipv4);
      return hosts.get(ipv4);
    },
    range(cidr) {
      const { base, prefix } = parseCidr(cidr);
      return `${embed6(network6, formatAddress(base))}/${96 + prefix}`;
    },
  };
}
