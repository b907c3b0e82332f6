/** Who was heard when: the leader's memory of heartbeats, as the controllers see it. */
import type { NodeId } from '#proto/model/ids.ts';

/** How the agent of a node is, as its watchdog says; `unconnected`: it runs, and has no session. */
export interface AgentReport {
  readonly condition: 'running' | 'stalled' | 'stopped' | 'gone' | 'unconnected';
  /** `clock.monotonic()` ms since which it does not run as it should, or, where it does, since which it does. */
  readonly sinceMs: number;
}

/** One asking of a silent host's kernel. */
export interface KernelRound {
  /** Monotonic ms. */
  readonly askedAtMs: number;
  /** The probe from here was answered; undefined: still awaited. */
  readonly leader: boolean | undefined;
  /** What each peer said that was asked; undefined: nothing yet. */
  readonly peers: ReadonlyMap<NodeId, boolean | undefined>;
  /** Who has said nothing by now is not waited for. */
  readonly closed: boolean;
}

/** What is known of a host's kernel. */
export interface KernelSeen {
  /** When it last answered a probe from here, monotonic ms; undefined: never since this leader began, as behind a firewall. */
  readonly answeredAtMs: number | undefined;
  /** What was seen last while it was heard: whether it answers at all; undefined: nobody has looked since this leader began. */
  readonly answers?: boolean | undefined;
  /** The newest; undefined: there was no reason to ask. */
  readonly round: KernelRound | undefined;
  /** It is to be asked as soon as others that are silent too have been. */
  readonly waits?: boolean;
}

export interface Liveness {
  /** `clock.monotonic()` ms of the node's last beat; undefined: never since this leader began. */
  lastBeatAt(node: NodeId): number | undefined;
  /** When a node was last heard for the first time since this leader began, in the same ms; -Infinity: none was. */
  readonly lastArrivalMs: number;
  /** When its beats were hung up after the last of them, in the same ms; undefined: they were not. Its machine lives: a dead one says nothing. */
  hungUpAt(node: NodeId): number | undefined;
  /** As the node's last beat said; undefined: none since this leader began. */
  agentOf(node: NodeId): AgentReport | undefined;
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
