/** What probes are made of: the node's plan as the agent wants it, and the ways to look at the kernel beside it. */
import type { HostKernel } from '#net/host/host-kernel.ts';
import type { Netlink } from '#net/host/netlink.ts';
import type { Nftables } from '#net/host/nftables.ts';
import type { NetStep } from '#net/plan/diff.ts';
import type { Planned } from '#net/plan/node-plan.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Log } from '#proto/kernel/log.ts';

/** Something that was put right, how often within the last minute, and how long ago the last time. */
export interface Repeated {
  readonly kind: NetStep['kind'];
  readonly message: string;
  readonly count: number;
  readonly agoMs: number;
}

export interface DoctorParts {
  readonly clock: Clock;
  readonly log: Log;
  /** Where the namespaces of tasks are pinned. */
  readonly netnsDir: string;
  /** What the kernel should hold; undefined: nothing yet. */
  readonly planned: () => Planned | undefined;
  /** Repairs of the last minute. */
  readonly repairs: () => readonly Repeated[];
}

/** The tools of one examination, its own: looking through the agent's would take its news away. */
export interface View extends DoctorParts {
  readonly plan: Planned;
  readonly kernel: HostKernel;
  readonly netlink: Netlink;
  readonly nftables: Nftables;
  netnsOf(taskId: string): string;
}
