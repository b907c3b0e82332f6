/** Health probes that an agent makes itself, from within the task's network. Field contracts: proto/gantry/v1/types.proto. */

/** A GET. */
export interface HttpProbe {
  readonly port: number;
  readonly path: string;
  /** With https, certificates are not checked: the address is the task's own. */
  readonly scheme: 'http' | 'https';
  /** Statuses that are good. */
  readonly statuses: readonly StatusRange[];
  readonly headers: Readonly<Record<string, string>>;
}

/** Both ends included. */
export interface StatusRange {
  readonly from: number;
  readonly to: number;
}

/** A connection. */
export interface TcpProbe {
  readonly port: number;
}

/** grpc.health.v1.Health/Check, in clear; an empty service is the server as a whole. */
export interface GrpcProbe {
  readonly port: number;
  readonly service: string;
}

export const unhealthyActions = ['replace', 'ignore', 'isolate'] as const;
/** What becomes of a task that is unhealthy: another one in its place, only no calls until it is well again, or another one while it runs on beside it. */
export type UnhealthyAction = (typeof unhealthyActions)[number];

/** How much is kept of what is unhealthy, where that is to be isolated. */
export interface Isolation {
  /** Tasks of the service at once; what more becomes unhealthy is replaced. */
  readonly atMost: number;
  /** Each for so long. */
  readonly forMs: number;
}
