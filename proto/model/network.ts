/** A network that services are on: who shares one may talk. Compose's top-level `networks:`, and `gantry network create`. */

/** A range of addresses that a network gives its tasks beside their primary ones (Compose: `ipam.config`). */
export interface NetworkSubnet {
  /** CIDR, IPv4. Unique in the cluster. */
  readonly subnet: string;
  /** Where macvlan tasks send what leaves the subnet; empty: nowhere. Of no meaning on cluster networks. */
  readonly gateway: string;
  /** CIDR within `subnet` that is given out; empty: all of it. */
  readonly ipRange: string;
  /** Addresses never given out (Compose: `aux_addresses`); the gateway is not either. */
  readonly reserved: readonly string[];
}

export interface NetworkSpec {
  /** Unique in the cluster: `PROJECT_KEY`, or what `name:` says. */
  readonly name: string;
  /** Whose Compose file declares it; empty: made by hand, and nobody's to remove but by hand. */
  readonly project: string;
  /** `cluster`: over Gantry's own routes (Compose: bridge, overlay or none said). `macvlan`: on a network of the hosts. */
  readonly driver: 'cluster' | 'macvlan';
  /** No way out of the cluster. */
  readonly internal: boolean;
  /** Tasks and services on it have IPv6 addresses too. */
  readonly ipv6: boolean;
  /** Refused where the cluster's encryption is off: Gantry encrypts between nodes, for all networks or none. */
  readonly encrypted: boolean;
  readonly subnets: readonly NetworkSubnet[];
  /** macvlan: the host's link that tasks are put beside. */
  readonly parent: string;
  readonly labels: Readonly<Record<string, string>>;
}

export interface ClusterNetwork {
  readonly spec: NetworkSpec;
  /** Small and unique while it exists: what the kernels know it by (group `0.0.0.N`). From 1. */
  readonly number: number;
  readonly createdAtMs: number;
}

/** A service's membership of a network (Compose: `services.NAME.networks`). */
export interface NetworkAttachment {
  /** The network's unique name. */
  readonly network: string;
  /** Names of the service on that network, beside its own. */
  readonly aliases: readonly string[];
  /** Fixed address in one of the network's subnets; empty: any. */
  readonly ipv4Address: string;
}

/** An address of a task beside its primary one. */
export interface TaskAddress {
  readonly network: string;
  readonly address: string;
}

/** Limits of a task's traffic in bits per second; 0: none (Compose: `x-bandwidth`). */
export interface Bandwidth {
  readonly egressBitsPerSecond: number;
  readonly ingressBitsPerSecond: number;
}

/** Who alone may call a service: services of its project by name, `PROJECT/SERVICE`, or `*` (Compose: `x-allow-from`). */
export interface AllowFrom {
  readonly services: readonly string[];
}

/** Whose network a task has: its own, its host's, nobody's, or that of the task of the same slot of another service of the project. */
export type NetworkMode = '' | 'host' | 'none' | `service:${string}`;

/** Another name, for one service alone, of a service of its project (Compose: `links`). */
export interface Link {
  readonly service: string;
  readonly alias: string;
}

/** The network that services of a project are on when they name none. */
export function defaultNetworkOf(project: string): string {
  return `${project}_default`;
}

/** The service that `service:NAME` names; undefined for the other modes. */
export function sharedNetworkOf(mode: NetworkMode): string | undefined {
  return mode.startsWith('service:') ? mode.slice('service:'.length) : undefined;
}
