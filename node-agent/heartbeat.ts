/** Beats: what keeps the node's tasks from being moved elsewhere, and what tells the agent that its control plane has gone silent. */

export interface HeartbeatTarget {
  /** HOST:PORT of the replica that leads. */
  readonly address: string;
  readonly session: number;
  readonly periodMs: number;
}

/** Implementations: watchdog/heartbeat-watchdog (a process with a connection of its own), and one in memory for the simulator. */
export interface Heartbeat {
  /** Beats there from now on; undefined: the agent has no session, and that is what beats say. */
  aim(target: HeartbeatTarget | undefined): void;
  /** As `Transport.keepWarm`, for beats. */
  keepWarm(addresses: readonly string[]): void;
  /** Acknowledgements have stopped coming: called once for each aim. */
  onSilence(listener: () => void): void;
  close(): Promise<void>;
}

/** Without an acknowledgement for this long, the connection is taken for dead. */
export const silenceMs = 1_000;
