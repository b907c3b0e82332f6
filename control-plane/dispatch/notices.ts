/** What nodes say has happened on them by itself, as events: bounded, whatever a node sends. */
import type { NodeNotice } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import type { Event } from '#proto/model/cluster.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';

export type Notice = Omit<Event, 'revision'>;

/** A node may say this many things at once, and one more every second. */
const burst = 60;
const refillMs = 1000;
const messageChars = 300;
/** What this version knows how to tell. */
const actions: ReadonlySet<string> = new Set(['repaired']);

export class NoticeDesk {
  readonly #clock: Clock;
  readonly #tell: (notice: Notice) => void;
  readonly #allowed = new Map<NodeId, { count: number; at: number }>();

  constructor(clock: Clock, tell: (notice: Notice) => void) {
    this.#clock = clock;
    this.#tell = tell;
  }

  take({ id, name }: Node, notices: readonly NodeNotice[]): void {
    for (const { action, message, count } of notices) {
      if (!actions.has(action) || !this.#allow(id)) continue;
      const text = message.slice(0, messageChars);
      this.#tell({
        // The node's own clock may be off.
        atMs: this.#clock.now(),
        kind: 'node',
        action,
        id,
        name,
        node: name,
        message: count > 1 ? `${text} (${count} times)` : text,
      });
    }
  }

  #allow(node: NodeId): boolean {
    const now = this.#clock.monotonic();
    const before = this.#allowed.get(node) ?? { count: burst, at: now };
    const count = Math.min(burst, before.count + (now - before.at) / refillMs);
    this.#allowed.set(node, { count: Math.max(0, count - 1), at: now });
    return count >= 1;
  }
}
