/** What one node should hold at one revision: a keyed set, sent in full first and then by increments. */
import type { Credential } from './cluster.ts';
import { contentKey, type DocumentContent } from './document.ts';
import type { NodeId, ServiceId, TaskId } from './ids.ts';
import type { AllowFrom, ClusterNetwork, TaskAddress } from './network.ts';
import type { Port, TaskTemplate } from './service.ts';
import type { Task } from './task.ts';

export interface TaskAssignment {
  readonly task: Task;
  readonly template: TaskTemplate;
  /** What the image's tag meant when the revision was first run; empty: resolve the tag. */
  readonly imageDigest: string;
  /** What its service links to, as far as it is there. */
  readonly links: readonly LinkedService[];
}

/** A service that a task's own service links to: what the environment of Docker's links is made of. */
export interface LinkedService {
  readonly alias: string;
  readonly service: string;
  /** Empty: it has no one address (dnsrr). */
  readonly vip: string;
  /** Those it says it listens on; its image may say more. */
  readonly ports: readonly LinkedPort[];
  readonly env: readonly string[];
  readonly image: string;
  /** Empty: resolve the tag. */
  readonly imageDigest: string;
}

export interface LinkedPort {
  readonly number: number;
  readonly protocol: Port['protocol'];
}

/** A service as every node's network sees it. */
export interface Endpoint {
  readonly serviceId: ServiceId;
  readonly project: string;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly mode: 'vip' | 'dnsrr';
  /** For `dnsrr` too: there it only stands for the service among those that may be called. */
  readonly vip: string;
  readonly networks: readonly EndpointNetwork[];
  readonly allowFrom: AllowFrom | undefined;
  readonly sticky: '' | 'client';
  /** One of its networks has IPv6. */
  readonly ipv6: boolean;
  readonly ports: readonly Port[];
  readonly backends: readonly Backend[];
  /** New connections to it are to be counted. */
  readonly counted: boolean;
  /** How long they wait where no task serves; 0: they are refused. */
  readonly holdMs: number;
  /** Usage of its tasks is to be reported; and where they have no health check, they serve when they listen on its ports. */
  readonly measured: boolean;
}

/** A network that a service is on, and what it is called there beside its own name. */
export interface EndpointNetwork {
  readonly network: string;
  readonly aliases: readonly string[];
}

export interface Backend {
  readonly taskId: TaskId;
  readonly slot: number;
  readonly address: string;
  readonly addresses: readonly TaskAddress[];
  readonly nodeId: NodeId;
  readonly nodeName: string;
  /** Healthy and not stopping: answered by DNS and balanced to. */
  readonly serving: boolean;
}

/** The label of nodes that says where they are: of different segments, they never share a link, whatever their addresses say. */
export const segmentLabel = 'gantry.link';

export interface Peer {
  readonly nodeId: NodeId;
  readonly name: string;
  readonly address: string;
  readonly subnet: string;
  /** As in Node. */
  readonly link: string;
  readonly address6: string;
  readonly wireguardKey: string;
  /** The value of its `segmentLabel`. */
  readonly segment: string;
}

export type AssignmentItem =
  | ({ readonly kind: 'task' } & TaskAssignment)
  | ({ readonly kind: 'endpoint' } & Endpoint)
  | ({ readonly kind: 'peer' } & Peer)
  | ({ readonly kind: 'network' } & ClusterNetwork)
  | ({ readonly kind: 'credential' } & Credential)
  | ({ readonly kind: 'content' } & DocumentContent);

/** The item's place in the set: `task/ID`, `endpoint/ID`, `peer/ID`, `network/NAME`, `credential/REGISTRY`, `content/TYPE/NAME/VERSION`. */
export function assignmentKey(item: AssignmentItem): string {
  switch (item.kind) {
    case 'task':
      return `task/${item.task.id}`;
    case 'endpoint':
      return `endpoint/${item.serviceId}`;
    case 'peer':
      return `peer/${item.nodeId}`;
    case 'network':
      return `network/${item.spec.name}`;
    case 'credential':
      return `credential/${item.registry}`;
    case 'content':
      return `content/${contentKey(item)}`;
  }
}
