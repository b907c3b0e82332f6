/** What the agent asks of the network room. Implementations: host-network (the kernel), fake-network (tests, simulator). */
import type { Probe, ProbeFact } from '#proto/gen/gantry/v1/probe.ts';
import type { Endpoint, Peer } from '#proto/model/assignment.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import type { ServiceId, TaskId } from '#proto/model/ids.ts';
import type { Bandwidth, ClusterNetwork, Link, TaskAddress } from '#proto/model/network.ts';
import type { Port } from '#proto/model/service.ts';
import type { NetStep } from './plan/diff.ts';

/** A task's place on the network. */
export interface Attachment {
  readonly taskId: TaskId;
  readonly address: string;
  readonly hostPorts: readonly Port[];
  readonly serviceId: ServiceId;
  readonly project: string;
  /** Names of the networks it is on. */
  readonly networks: readonly string[];
  /** Its addresses out of networks' own subnets. */
  readonly addresses: readonly TaskAddress[];
  readonly bandwidth: Bandwidth;
  /** Names that services of its project have for it alone. */
  readonly links: readonly Link[];
  /** Name servers for what is outside of the cluster; empty: the host's. */
  readonly dns: readonly string[];
}

/** Everything the network of one node is a function of. */
export interface NetworkWanted
  extends Pick<ClusterConfig, 'network' | 'vipNetwork' | 'network6' | 'encapsulation' | 'encryption' | 'domain'> {
  readonly revision: number;
  readonly nodeId: string;
  /** This node's own address and subnet (CIDR). */
  readonly address: string;
  readonly subnet: string;
  /** As in Node and Peer. */
  readonly link: string;
  readonly address6: string;
  readonly segment: string;
  readonly peers: readonly Peer[];
  readonly endpoints: readonly Endpoint[];
  readonly networks: readonly ClusterNetwork[];
  /** Tasks of this node that have, or should have, a namespace. */
  readonly attachments: readonly Attachment[];
}

export interface NetworkRepair {
  /** What was missing or wrong, and put right: "route 10.192.3.0/24 via 10.90.0.3 was missing". */
  readonly message: string;
  /** What it took. */
  readonly kind: NetStep['kind'];
}

export interface Network {
  /** Makes the kernel and DNS hold `wanted`; resolves when they do. Calls are coalesced: the newest wins. */
  apply(wanted: NetworkWanted): Promise<void>;
  /** A namespace with an address for a task; the same again for the same task. Returns the namespace's path. */
  attach(
    attachment: Attachment,
  ): Promise<{ readonly netnsPath: string; readonly gateway: string; readonly dns: string }>;
  /** Removes the namespace, veth and what is left in conntrack; nothing where there is none. */
  detach(taskId: TaskId): Promise<void>;
  /** Tasks that have a namespace here. */
  attached(): Promise<readonly TaskId[]>;
  /** How many TCP connections of others each of these addresses of this node answers now. One look for all of them. */
  connections(addresses: readonly string[]): Promise<ReadonlyMap<string, number>>;
  /** New connections that this node has led to services that are counted, since it was last asked; only those that had some. */
  traffic(): Promise<ReadonlyMap<ServiceId, number>>;
  /**
   * Runs the doctor's probes, and says each fact as it is found; resolves when all are done, also those that met trouble.
   * `signal` ends the ones that watch.
   */
  examine(probes: readonly Probe[], say: (fact: ProbeFact) => void, signal: AbortSignal): Promise<void>;
  /** A service is called that has no task: again every second as long as somebody waits. The result unsubscribes. */
  onCall(listener: (service: ServiceId) => void): () => void;
  onRepair(listener: (repair: NetworkRepair) => void): () => void;
  close(): Promise<void>;
}
