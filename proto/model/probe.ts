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

export const unhealthyActions = ['replace', 'ignore'] as const;
/** What becomes of a task that is unhealthy: another one in its place, or only no calls until it is well again. */
export type UnhealthyAction = (typeof unhealthyActions)[number];
