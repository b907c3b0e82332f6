/** A machine that runs tasks. */
import type { NodeId } from './ids.ts';
import type { Resources } from './resources.ts';

export interface Platform {
  readonly os: string;
  readonly architecture: string;
  readonly variant: string;
}

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
}
