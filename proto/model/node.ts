/** A machine that runs tasks. */
import type { NodeId } from './ids.ts';
import type { Resources } from './resources.ts';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
}

/** Among its components where its agent has a watchdog that ends singletons when the node's lease does. */
export const leaseComponent = 'watchdog';
/** Among its components where its agent has the image of a task that waits for its seat ready before the task has an address. */
export const unaddressedComponent = 'unaddressed';

export interface Node {
  readonly id: NodeId;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  /** What the operator wants of it: `pause` takes no new tasks, `drain` keeps none. */
  readonly availability: 'active' | 'drain' | 'pause';
  readonly state: 'ready' | 'down' | 'unknown';
  readonly message: string;
  readonly platform: Platform;
  readonly capacity: Resources;
  /** On the hosts' own network. */
  readonly address: string;
  /** CIDR of its tasks' addresses. */
  readonly subnet: string;
  /** The subnet that the operator started its agent with; empty: any. */
  readonly pinnedSubnet: string;
  /** `address` with the prefix length of its link: `10.90.0.1/24`; empty where unknown. */
  readonly link: string;
  /** IPv6 on the link of `address`; empty: none. */
  readonly address6: string;
  /** CIDRs that the host reaches by routes of its own, which ours must not overlap. */
  readonly foreignNetworks: readonly string[];
  /** Public key (base64); empty: the node has no WireGuard. */
  readonly wireguardKey: string;
  /** Changes with each boot of the machine: tasks of an earlier boot have ended. */
  readonly bootId: string;
  readonly agentVersion: string;
  readonly kernel: string;
  readonly components: Readonly<Record<string, string>>;
  readonly runtimes: readonly string[];
  readonly joinedAtMs: number;
  /** Which joining its certificates stem from: those of an earlier one are refused. Absent where it joined before this was kept. */
  readonly enrolment?: string;
  readonly stateAtMs: number;
  /** Hash of the root that its certificate is of, as it says. */
  readonly authority?: string;
  /** Why its agent answers nobody although the host lives: nothing new is placed there, and what runs goes on. Empty: it answers. */
  readonly away: string;
  /** Down, and its lease is surely over: no singleton runs on it. */
  readonly fenced: boolean;
  /** It was down, and its agent has not said since what still runs there. */
  readonly unaccounted: boolean;
  /** Written by a restore from a backup, and not heard since. */
  readonly restored?: boolean | undefined;
  /** Absent: it was not down of late. */
  readonly flapping?: Flapping | undefined;
  /** What is wrong with its wall clock; absent: nothing. */
  readonly clock?: string | undefined;
  /** Its kernel answers probes of a leader while it is heard, so that its silence tells something; absent: it does not, as behind a firewall. */
  readonly answersProbes?: boolean | undefined;
}

/** That a node was down of late, and how often. */
export interface Flapping {
  /** How often it was found down. */
  readonly verdicts: number;
  /** When for the first time, wall clock ms. */
  readonly sinceMs: number;
  /** Other nodes are preferred for new tasks until then, wall clock ms; 0: none is. */
  readonly untilMs: number;
}

/** It has gone down again and again of late: new tasks go to others where others take them. */
export function isPassedOver(node: Node | undefined): boolean {
  return (node?.flapping?.untilMs ?? 0) > 0;
}
