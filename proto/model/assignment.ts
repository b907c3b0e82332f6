/** What one node should hold at one revision: a keyed set, sent in full first and then by increments. */
import type { Credential } from './cluster.ts';
import type { NodeId, ServiceId, TaskId } from './ids.ts';
import type { Port, TaskTemplate } from './service.ts';
import type { Task } from './task.ts';

export interface TaskAssignment {
  readonly task: Task;
  readonly template: TaskTemplate;
  /** What the image's tag meant when the revision was first run; empty: resolve the tag. */
  readonly imageDigest: string;
}

/** A service as every node's network sees it. */
export interface Endpoint {
  readonly serviceId: ServiceId;
  readonly project: string;
  readonly name: string;
  readonly aliases: readonly string[];
  readonly mode: 'vip' | 'dnsrr';
  readonly vip: string;
  readonly ports: readonly Port[];
  readonly backends: readonly Backend[];
}

export interface Backend {
  readonly taskId: TaskId;
  readonly slot: number;
  readonly address: string;
  readonly nodeId: NodeId;
  readonly nodeName: string;
  /** Healthy and not stopping: answered by DNS and balanced to. */
  readonly serving: boolean;
}

export interface Peer {
  readonly nodeId: NodeId;
  readonly name: string;
  readonly address: string;
  readonly subnet: string;
}

export type AssignmentItem =
  | ({ readonly kind: 'task' } & TaskAssignment)
  | ({ readonly kind: 'endpoint' } & Endpoint)
  | ({ readonly kind: 'peer' } & Peer)
  | ({ readonly kind: 'credential' } & Credential);

/** The item's place in the set: `task/ID`, `endpoint/ID`, `peer/ID`, `credential/REGISTRY`. */
export function assignmentKey(item: AssignmentItem): string {
  switch (item.kind) {
    case 'task':
      return `task/${item.task.id}`;
    case 'endpoint':
      return `endpoint/${item.serviceId}`;
    case 'peer':
      return `peer/${item.nodeId}`;
    case 'credential':
      return `credential/${item.registry}`;
  }
}
