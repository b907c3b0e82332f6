/** What is true of the whole cluster, and the small records beside the big nouns. */

export interface ClusterConfig {
  readonly id: string;
  /** CIDR that all node subnets come from. */
  readonly network: string;
  /** CIDR of service addresses. */
  readonly vipNetwork: string;
  /** A /96: IPv6 addresses are it and an IPv4 address in the last 32 bits. */
  readonly network6: string;
  /** Whether packets between nodes are put into VXLAN: where two do not share a link, always, or never. */
  readonly encapsulation: 'auto' | 'always' | 'never';
  /** Of all packets between nodes; empty: none. */
  readonly encryption: '' | 'wireguard';
  /** Of services that name none. */
  readonly strategy: 'spread' | 'binpack';
  /** How long what was removed can be brought back; 0: not at all. */
  readonly trashMs: number;
  /** Tasks moved to even out nodes; 0: none unless asked. */
  readonly rebalancePerMinute: number;
  readonly rebalanceAtOnce: number;
  /** How long tasks on a node that is down are counted on to come back with it; 0: not at all. */
  readonly orphanAfterMs: number;
  /** How long a node that was down twice is passed over when it is back, and twice as long each further time; 0: not at all. */
  readonly flapDampingMs: number;
  /** How long the tasks of a host that lives without its agent are left alone; 0: as long as it lives. */
  readonly agentAwayLimitMs: number;
  /** Where agents send logs; empty: nowhere. */
  readonly natsUrl: string;
  /** Search domain of container DNS. */
  readonly domain: string;
  /** How often it was restored from a backup, and when for the last time (wall clock ms; 0: never). */
  readonly incarnation: number;
  readonly restoredAtMs: number;
}

export const neverRestored = { incarnation: 0, restoredAtMs: 0 } as const;

/** Gentle enough to go unnoticed, and quick enough to have evened out a few dozen tasks within a minute. */
export const rebalanceDefaults = { rebalancePerMinute: 30, rebalanceAtOnce: 2 } as const;

/** As Swarm: what has been away for a day nobody waits for. */
export const defaultOrphanAfterMs = 24 * 3_600_000;

/** Long enough to see whether it stays, and short enough to go unnoticed where it does. */
export const defaultFlapDampingMs = 10_000;

/** An agent that is restarted, or upgraded, is back long before. */
export const defaultAgentAwayLimitMs = 30_000;

/** A join token, without its secret. */
export interface Token {
  readonly id: string;
  /** SHA-256 of the secret, hex. */
  readonly secretHash: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
  /** 0: no limit. */
  readonly usesLeft: number;
}

/** A login at a registry, used by nodes to pull. */
export interface Credential {
  readonly registry: string;
  readonly username: string;
  readonly password: string;
}

/** Who leads. Every write is guarded by it. */
export interface Leadership {
  readonly epoch: number;
  readonly replica: string;
  /** Where the leader's agent service listens. */
  readonly address: string;
}

/** A committed change, as users see it. */
export interface Event {
  readonly revision: number;
  readonly atMs: number;
  readonly kind: 'service' | 'task' | 'node' | 'cluster';
  readonly action: string;
  readonly id: string;
  readonly name: string;
  readonly node: string;
  readonly message: string;
}
