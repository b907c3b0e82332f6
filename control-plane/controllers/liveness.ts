/** Who was heard when: the leader's memory of heartbeats, as the controllers see it. */
import type { NodeId } from '#proto/model/ids.ts';
import type { KernelSeen } from '../reconcilers/kernel-verdict.ts';
import type { AgentSeen } from '../reconcilers/node-health.ts';

export interface Liveness {
  /** `clock.monotonic()` ms of the node's last beat; undefined: never since this leader began. */
  lastBeatAt(node: NodeId): number | undefined;
  /** When a node was last heard for the first time since this leader began, in the same ms; -Infinity: none was. */
  readonly lastArrivalMs: number;
  /** When its beats were hung up after the last of them, in the same ms; undefined: they were not. Its machine lives: a dead one says nothing. */
  hungUpAt(node: NodeId): number | undefined;
  /** As the node's last beat said; undefined: none since this leader began. */
  agentOf(node: NodeId): AgentSeen | undefined;
  /** What the clocks of nodes are ahead of this one, ms, of those whose beats tell. */
  clocks(): ReadonlyMap<NodeId, number>;
  /** What probes of its kernel have shown. */
  kernelOf(node: NodeId): KernelSeen;
  /** It is silent: its kernel is to be asked. The answers come by `onChange`. */
  suspect(node: NodeId): void;
  /** The revision that the node's agent has said, in its session now, to hold; undefined: it has no session. */
  appliedRevision(node: NodeId): number | undefined;
  /** No lease is granted to the node from here on, until its record is newer than `modRevision` and not fenced. */
  withhold(node: NodeId, modRevision: number): void;
  /** Its lease is withheld, and its record still as it was. */
  withheld(node: NodeId, modRevision: number): boolean;
  /** Nodes whose lease is withheld, if their records are still as they were. */
  withheldNodes(): Iterable<NodeId>;
  /**
   * Calls `listener` when a node's beats begin, begin again after a silence, or its stream ends. Calling it for every
   * beat is allowed and costs a look at one node. The result unsubscribes.
   */
  onChange(listener: (node: NodeId) => void): () => void;
}
