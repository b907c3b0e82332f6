/** What the operator's service is made of; handed in by assemble. */

import type { Liveness } from '#control-plane/controllers/liveness.ts';
import type { Usage } from '#control-plane/controllers/usage.ts';
import type { Relays } from '#control-plane/dispatch/relay.ts';
import type { EventLog } from '#control-plane/events/event-log.ts';
import type { LogStore } from '#control-plane/logs/log-store.ts';
import type { WishContext } from '#control-plane/reconcilers/service-changes.ts';
import type { Authority, KeyPair } from '#control-plane/security/certificates.ts';
import type { Enrolment } from '#control-plane/security/enrol.ts';
import type { ContentSeal } from '#control-plane/security/seal.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Store } from '#control-plane/store/store.ts';
import type { PlannedTask } from '#proto/gen/gantry/v1/operator.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { newId, type Random } from '#proto/kernel/random.ts';
import type { Root } from '#proto/model/authority.ts';
import type { LeaderDoor } from './leader-door.ts';
import type { Turns } from './turns.ts';

/** What the controllers would do about changes that are not committed: service id → its tasks' fates. */
export type Planner = (
  snapshot: Snapshot,
  changes: readonly Change[],
  now: number,
) => ReadonlyMap<string, readonly PlannedTask[]>;

export interface OperatorParts {
  readonly store: Store;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly events: EventLog;
  readonly logs: LogStore;
  /** Where another replica leads and has the sessions; undefined: this one does, or nobody. */
  readonly leader: () => LeaderDoor | undefined;
  /** Up to which instant (ms) this replica knows what was decided, where it may not know all of it; undefined: it does. */
  readonly asOfMs: () => number | undefined;
  /** Of this replica. */
  readonly relays: Relays;
  readonly usage: Usage;
  readonly authority: Pick<Authority, 'trust' | 'hash'>;
  /** A root to come after this one. Faults: `unsupported`. */
  readonly newRoot: (by: KeyPair) => Promise<{ readonly root: Root; readonly key: string; readonly cross: string }>;
  readonly liveness: Liveness;
  readonly enrolment: Pick<Enrolment, 'createToken' | 'revokeToken' | 'issueOperator'>;
  /** Seals and opens what configs and secrets hold. */
  readonly contents: ContentSeal;
  /** Files of the cluster's identity, keys among them, by name: for a backup. */
  readonly identity: () => Promise<Readonly<Record<string, string>>>;
  readonly plan: Planner;
  readonly wishes: Turns;
  readonly version: string;
  /** Where operators with a certificate reach the control plane, `host:port`. */
  readonly addresses: readonly string[];
  /** As in LeaderParts. */
  readonly probe: (address: string) => Promise<number | undefined>;
}

const attempts = 8;
const retryMs = 20;

/** The changes of a wish, decided on the snapshot of this moment. */
export type Decide = (context: WishContext) => readonly Change[];

/** What a wish is decided on, now; `by`: the operator who asks, where that is known. */
export function wishContext({ store, clock, random }: OperatorParts, by = ''): WishContext {
  return { snapshot: store.snapshot, now: clock.now(), newId: () => newId(random), by };
}

/**
 * Commits what `decide` wishes, all or nothing, and waits until the snapshot has it; decides anew when somebody was faster.
 * Returns the revision of the commit; 0 where there was nothing to change.
 */
export function commitWish(parts: OperatorParts, decide: Decide, by = ''): Promise<number> {
  return parts.wishes.take(() => commitNow(parts, decide, by));
}

async function commitNow(parts: OperatorParts, decide: Decide, by: string): Promise<number> {
  const { store, clock } = parts;
  for (let attempt = 1; ; attempt++) {
    const changes = decide(wishContext(parts, by));
    if (changes.length === 0) return 0;
    try {
      const revision = await store.commit(changes);
      await store.seen(revision);
      return revision;
    } catch (error) {
      if (attempt === attempts || !isFault(error, 'conflict')) throw error;
      await clock.sleep(retryMs * attempt);
    }
  }
}
