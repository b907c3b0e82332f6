/** What happened, as events: what the store says is compared with what is kept of it, and with what each replica tells who asks. */
import { eventsOf } from '#control-plane/events/events-of.ts';
import { idOf } from '#control-plane/events/publish.ts';
import type { Delta } from '#control-plane/store/records.ts';
import { assert } from '#proto/kernel/errors.ts';
import type { Event } from '#proto/model/cluster.ts';
import type { FakeClock } from '#test/support/fake-clock.ts';
import { MemoryEventStream } from '#test/support/memory-event-stream.ts';
import type { Invariant } from './invariants.ts';
import type { World } from './world.ts';

/** A leader is there by then, and NATS is. */
const keptWithinMs = 15_000;

/** Something that happened. */
interface Happened {
  readonly event: Event;
  readonly atMs: number;
}

export class SimEvents {
  readonly stream: MemoryEventStream;
  readonly #clock: FakeClock;
  readonly #all = new Map<string, Happened>();
  /** Of these, what is not known to be kept. */
  readonly #open = new Map<string, Happened>();
  /** What some replica did not see happen: it tells of the difference alone. */
  readonly #gaps: { readonly since: number; readonly revision: number }[] = [];
  readonly #kept = new Set<string>();
  #heardSince = 0;
  #read = 0;
  #compacted = 0;

  constructor(clock: FakeClock) {
    this.#clock = clock;
    this.stream = new MemoryEventStream(clock);
    this.stream.answerMs = 2;
  }

  /** The store has made a step. */
  step(delta: Delta): void {
    for (const event of eventsOf(delta, this.#clock.now())) {
      const happened = { event, atMs: this.#clock.monotonic() };
      this.#all.set(idOf(event), happened);
      if (delta.revision > this.#heardSince) this.#open.set(idOf(event), happened);
    }
  }

  /** A replica listens from here on: what was before the first of all nobody tells. */
  listens(revision: number): void {
    if (this.#heardSince > 0) return;
    this.#heardSince = revision;
    for (const [id, { event }] of this.#open) if (event.revision <= revision) this.#open.delete(id);
  }

  /** A replica has made one. */
  seen({ since, revision }: Delta): void {
    if (since !== undefined) this.#gaps.push({ since, revision });
  }

  /** NATS loses what it has: who leads has a part of it still. */
  lose(): void {
    this.stream.lose();
    this.#open.clear();
    this.#kept.clear();
    this.#read = 0;
  }

  /** Takes note of what is kept. Throws where it is kept twice, or never happened. Who leads may hear of a step, and keep it, before the world has: that is for the next look. */
  look({ etcd: { compacted }, truth: { revision } }: World): void {
    for (; this.#read < this.stream.kept.length; this.#read++) {
      const { event } = this.stream.kept[this.#read]!;
      if (event.revision > revision) break;
      const id = idOf(event);
      assert(!this.#kept.has(id), `${wordsOf(event)} is kept twice`);
      this.#kept.add(id);
      this.#open.delete(id);
      assert(this.#all.has(id) || this.#isDifference(event), `${wordsOf(event)} is kept, and did not happen`);
    }
    if (compacted === this.#compacted) return;
    this.#compacted = compacted;
    // Who was to keep it may end before that: then nobody can know of it any more.
    for (const [id, { event }] of this.#open) if (event.revision <= compacted) this.#open.delete(id);
  }

  /** What happened so long ago and is not kept. */
  missing(olderThanMs: number): Event | undefined {
    const now = this.#clock.monotonic();
    for (const { event, atMs } of this.#open.values())
      if (now - atMs >= olderThanMs && !this.#isUnseen(event)) return event;
    return undefined;
  }

  /** What is wrong with what a replica tells; empty where nothing is. */
  async wrongIn(told: AsyncIterable<Event>): Promise<string> {
    const found = new Set<string>();
    let last = 0;
    for await (const event of told) {
      const id = idOf(event);
      if (found.has(id)) return `${wordsOf(event)} is told twice`;
      found.add(id);
      last = event.revision;
    }
    for (const id of this.#kept)
      if (!found.has(id)) return `${wordsOf(this.#all.get(id)?.event)} is kept, and not told`;
    return last === 0 && this.#kept.size > 0 ? 'nothing is told' : '';
  }

  #isDifference({ revision }: Event): boolean {
    return this.#gaps.some((gap) => gap.revision === revision);
  }
  #isUnseen({ revision }: Event): boolean {
    return this.#gaps.some((gap) => gap.since < revision && revision <= gap.revision);
  }
}

/** Of all that has happened. */
export const eventsAreKeptOnce: Invariant = {
  name: 'no event is lost, and none is kept twice',
  look: (world) => world.events.look(world),
  calm(world) {
    const { events } = world;
    events.look(world);
    const missing = events.missing(keptWithinMs);
    assert(!missing, `${wordsOf(missing)} is not kept`);
  },
};

/** Why it has not come to rest; empty when it has. */
export async function eventsUntold(world: World): Promise<string> {
  const { events, replicas } = world;
  events.look(world);
  const missing = events.missing(0);
  if (missing) return `${wordsOf(missing)} is not kept`;
  for (const { name, run } of replicas) {
    const reading = run?.events && events.wrongIn(run.events.read({}));
    await world.pass(10);
    const wrong = await reading;
    if (wrong) return `${name}: ${wrong}`;
  }
  return '';
}

function wordsOf(event: Event | undefined): string {
  return event ? `"${event.kind} ${event.name} ${event.action} ${event.message}" @${event.revision}` : 'something';
}
