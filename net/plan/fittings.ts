/** What a task's network has beside its primary address and the way by its gateway: further addresses, other links, limits. */
import type { Bandwidth, TaskAddress } from '#proto/model/network.ts';
import { containsAddress, formatCidr, gatewayOf, parseCidr, prefixOf } from './cidr.ts';
import { embed6 } from './cidr6.ts';
import type { Networks } from './isolation.ts';
import { furtherAddresses, hasIpv6 } from './local-tasks.ts';
import { macOf } from './mac.ts';
import { describeRoute, type Route } from './routes.ts';

/** The link of a task that leads to its node's bridge; those that lead elsewhere are `eth1` and on. */
export const taskLink = 'eth0';

export type Fitting =
  /** A link of its own on the network that `parent`, a link of the host, is on. */
  | {
      readonly kind: 'lan';
      readonly link: string;
      readonly parent: string;
      readonly mac: string;
      readonly network: string;
    }
  /** CIDR with host bits. */
  | { readonly kind: 'address'; readonly link: string; readonly cidr: string }
  | { readonly kind: 'route'; readonly route: Route }
  | { readonly kind: 'rate'; readonly direction: 'egress' | 'ingress'; readonly bitsPerSecond: number };

/** By what they are called; in an order in which they can be made. */
export type Fittings = ReadonlyMap<string, Fitting>;

export interface FittedTask {
  readonly address: string;
  readonly networks: readonly string[];
  readonly addresses: readonly TaskAddress[];
  readonly bandwidth: Bandwidth;
}

export interface FittingWords {
  readonly subnet: string;
  readonly network: string;
  readonly vipNetwork: string;
  readonly network6: string;
}

export function fittingsOf(task: FittedTask, networks: Networks, words: FittingWords): Fittings {
  const all: Fitting[] = [
    ...lansOf(task, networks),
    ...(defaultLan(task, networks) ? insideRoutes(networks, words) : []),
    ...furtherOf(task, networks, words),
    ...(hasIpv6(task, networks) && words.network6 !== '' ? ipv6Of(task, words) : []),
    ...ratesOf(task.bandwidth),
  ];
  return new Map(all.map((fitting) => [describeFitting(fitting), fitting]));
}

/**
 * The gateway by which a task leaves the cluster, where that is not its node: that of a macvlan network, for who is on no
 * other that leads out.
 */
export function defaultLan(task: Pick<FittedTask, 'networks' | 'addresses'>, networks: Networks): string | undefined {
  if (task.networks.some((name) => networks.routed.get(name)?.spec.internal === false)) return undefined;
  return lanAddresses(task, networks).find(({ gateway }) => gateway !== '')?.gateway;
}

function lanAddresses(task: Pick<FittedTask, 'addresses'>, { lans }: Networks) {
  return task.addresses.flatMap(({ network, address }) => {
    const spec = lans.get(network)?.spec;
    const range = spec?.subnets.find(({ subnet }) => containsAddress(subnet, address));
    return spec && range ? [{ spec, address, ...range }] : [];
  });
}

function lansOf(task: FittedTask, networks: Networks): Fitting[] {
  const gateway = defaultLan(task, networks);
  return lanAddresses(task, networks).flatMap((lan, index): Fitting[] => {
    const link = `eth${index + 1}`;
    const byDefault = gateway !== undefined && lan.gateway === gateway;
    return [
      { kind: 'lan', link, parent: lan.spec.parent, mac: macOf(lan.address), network: lan.spec.name },
      { kind: 'address', link, cidr: `${lan.address}/${prefixOf(lan.subnet)}` },
      ...(byDefault ? [route({ destination: '0.0.0.0/0', gateway, link })] : []),
    ];
  });
}

/** What of the cluster the default route does not lead to. */
function insideRoutes({ subnets }: Networks, { subnet, network, vipNetwork }: FittingWords): Fitting[] {
  const gateway = gatewayOf(subnet);
  const inside = [network, vipNetwork].map((range) => formatCidr(parseCidr(range)));
  return [...inside, ...subnets].map((destination) => route({ destination, gateway, link: taskLink }));
}

function furtherOf(task: FittedTask, networks: Networks, { subnet }: FittingWords): Fitting[] {
  const gateway = gatewayOf(subnet);
  return furtherAddresses(task, networks).flatMap(({ network, address }): Fitting[] => {
    const ranges = networks.routed.get(network)?.spec.subnets ?? [];
    const own = ranges.filter((range) => containsAddress(range.subnet, address));
    return [
      { kind: 'address', link: taskLink, cidr: `${address}/32` },
      ...own.map((range) =>
        route({ destination: formatCidr(parseCidr(range.subnet)), gateway, link: taskLink, source: address }),
      ),
    ];
  });
}

function ipv6Of(task: FittedTask, { subnet, network6 }: FittingWords): Fitting[] {
  const gateway = embed6(network6, gatewayOf(subnet));
  return [
    { kind: 'address', link: taskLink, cidr: `${embed6(network6, task.address)}/128` },
    route({ destination: '::/0', gateway, link: taskLink }),
  ];
}

function ratesOf({ egressBitsPerSecond, ingressBitsPerSecond }: Bandwidth): Fitting[] {
  const rates = { egress: egressBitsPerSecond, ingress: ingressBitsPerSecond };
  return (['egress', 'ingress'] as const).flatMap((direction): Fitting[] =>
    rates[direction] > 0 ? [{ kind: 'rate', direction, bitsPerSecond: rates[direction] }] : [],
  );
}

function route(way: { destination: string; gateway: string; link: string; source?: string }): Fitting {
  return { kind: 'route', route: { type: 'via', ...way } };
}

/** How people write a fitting. */
export function describeFitting(fitting: Fitting): string {
  switch (fitting.kind) {
    case 'lan':
      return `link ${fitting.link} beside ${fitting.parent}`;
    case 'address':
      return `address ${fitting.cidr} of ${fitting.link}`;
    case 'route':
      return `route ${describeRoute(fitting.route)}`;
    case 'rate':
      return `${fitting.direction} limit of ${fitting.bitsPerSecond} bit/s`;
  }
}
