/**
 * What a leader does so that each event is kept once, whoever led when it happened: it looks at what the stream holds, and goes on from
 * there. What has happened since this replica began is in its ring, what happened before in the store's history.
 */
import { hash } from 'node:crypto';
import type { Clock } from '#proto/kernel/clock.ts';
import { isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { backoffMs } from '#proto/kernel/retry.ts';
import type { Event } from '#proto/model/cluster.ts';
import type { Store } from '../store/store.ts';
import type { EventRing, Heard } from './event-ring.ts';
import { type EventStream, eventsKeptMs } from './event-stream.ts';
import { eventsOf } from './events-of.ts';

export interface PublishParts {
  readonly store: Pick<Store, 'past' | 'snapshot'>;
  readonly stream: EventStream;
  readonly ring: EventRing;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
}

const batchSize = 256;
/** Messages at the end of the stream that are looked at: at first, and at most. */
const lookedAt = { first: 4 * batchSize, most: 64 * batchSize };
const backoff = { initialMs: 100, maxMs: 2_000 };

/** Until the signal aborts. */
export async function publish(parts: PublishParts, signal: AbortSignal): Promise<void> {
  const { clock, random, log } = parts;
  const ended = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }));
  for (let attempt = 1; !signal.aborted; attempt++) {
    try {
      for await (const _ of published(parts, ended, signal)) attempt = 0;
    } catch (error) {
      if (!isFault(error)) throw error;
      if (attempt === 1) log.warn('events wait to be kept', { error });
      await clock.sleep(backoffMs(backoff, attempt || 1, random), signal).catch(() => {});
    }
  }
}

/** How many were kept, again and again; ends where it has to look again. */
async function* published(parts: PublishParts, ended: Promise<void>, signal: AbortSignal): AsyncGenerator<number> {
  const { store, stream, ring, clock } = parts;
  const { cluster } = store.snapshot;
  /** The cluster, and how often it was restored: its revisions begin anew then. */
  const mark = `${cluster?.id}.${cluster?.incarnation}:`;
  const known = await look(stream, mark);
  const keep = async (heard: readonly Heard[], whole: number) => {
    const oldestMs = clock.now() - eventsKeptMs;
    const missing = heard.filter((one) => one.event.atMs > oldestMs && !isKnown(known, one));
    if (missing.length > 0) await stream.keep(missing.map(({ event }) => ({ id: mark + idOf(event), whole, event })));
    return missing.length;
  };
  const since = known.whole ?? settledAt(store);
  let whole = known.whole ?? 0;
  if (since < ring.wholeSince) {
    const until = ring.wholeSince;
    for await (const delta of store.past(since, until)) {
      const events = eventsOf(delta, clock.now());
      yield await keep(
        events.map((event) => ({ event, since: undefined })),
        delta.revision - 1,
      );
    }
    whole = until;
  }
  for (let place = ring.placeAfter(whole); !signal.aborted; ) {
    const heard = ring.from(place, batchSize);
    if (!heard) return;
    if (heard.length === 0) await Promise.race([ring.grown(), ended]);
    else yield await keep(heard, heard[0]!.event.revision - 1);
    place += heard.length;
  }
}

/**
 * The revision at which the cluster last became what it is: a restore writes that record after all others. What was before it is no news
 * to a stream that holds nothing, as after its disk was lost.
 */
function settledAt({ snapshot }: PublishParts['store']): number {
  return snapshot.get('cluster', 'config')?.modRevision ?? 0;
}

/** What the stream is known to hold. */
interface Known {
  /** Everything up to that revision; undefined: nothing of this cluster. */
  readonly whole: number | undefined;
  readonly ids: ReadonlySet<string>;
  /** When each thing was said last, as a revision. */
  readonly said: ReadonlyMap<string, number>;
}

/** Reads the end of the stream, back to where it is whole. */
async function look(stream: EventStream, mark: string): Promise<Known> {
  for (let count = lookedAt.first; ; count *= 4) {
    const last = await stream.last(count);
    const ours = last.filter(({ id }) => id.startsWith(mark));
    const whole = ours.length > 0 ? Math.max(...ours.map((kept) => kept.whole)) : undefined;
    const reachesBack = last.length < count || (whole !== undefined && last[0]!.event.revision <= whole);
    if (!reachesBack && whole !== undefined && count < lookedAt.most) continue;
    return {
      whole,
      ids: new Set(ours.map(({ event }) => idOf(event))),
      said: new Map(ours.map(({ event }) => [whatOf(event), event.revision])),
    };
  }
}

/** What was not seen to happen says no more than what others saw of it. */
function isKnown({ ids, said }: Known, { event, since }: Heard): boolean {
  return ids.has(idOf(event)) || (since !== undefined && (said.get(whatOf(event)) ?? 0) > since);
}

/** Events are told again and again, and hashing one costs more than all else about it. */
const ids = new WeakMap<Event, string>();

/** The same for the same event, whoever heard of it. */
export function idOf(event: Event): string {
  const known = ids.get(event);
  if (known !== undefined) return known;
  // What is no step of the store may be said twice at one revision.
  const when = event.action === 'repaired' ? event.atMs : '';
  const id = `${event.revision}-${hash('sha1', `${whatOf(event)} ${event.message} ${when}`, 'base64url')}`;
  ids.set(event, id);
  return id;
}

/** What happened to whom, whenever that was. */
export function whatOf({ kind, id, action }: Event): string {
  return `${kind} ${id} ${action}`;
}
