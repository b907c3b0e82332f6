/** Looks at every autoscaled service every two seconds, and when it is called: remembers for the decider, which is pure, and has the loop carry out what it says. */
import { autoscale, freshMemory, type ScalingMemory } from '#control-plane/reconcilers/autoscale.ts';
import { same } from '#control-plane/reconcilers/same.ts';
import { type Range, type ScheduledRange, scheduledRange } from '#control-plane/reconcilers/scheduled-range.ts';
import type { Applied } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { type Autoscale, type Autoscaled, replicasOf } from '#proto/model/autoscale.ts';
import { Zones } from '#proto/model/calendar.ts';
import type { NodeId, ServiceId } from '#proto/model/ids.ts';
import type { Service } from '#proto/model/service.ts';
import { loadOf } from './service-load.ts';
import type { Usage } from './usage.ts';

const lookEveryMs = 2_000;

interface Followed {
  memory: ScalingMemory;
  /** Since when it is followed, monotonic ms: nothing is known of before. */
  readonly sinceMs: number;
  /** In force until its instant, of the spec that it was made of. */
  scheduled: ScheduledRange | undefined;
  /** What the loop is to commit. */
  wanted: Autoscaled | undefined;
}

export interface AutoscalerParts {
  readonly clock: Clock;
  readonly usage: Usage;
  readonly snapshot: () => Snapshot;
  /** A service has another number now: look at it. */
  readonly changed: (service: ServiceId) => void;
}

export class Autoscaler {
  readonly #parts: AutoscalerParts;
  readonly #zones = new Zones();
  readonly #followed = new Map<ServiceId, Followed>();
  readonly #unsubscribe: () => void;
  #timer: Timer | undefined;

  constructor(parts: AutoscalerParts) {
    this.#parts = parts;
    for (const service of parts.snapshot().all('service')) this.#follow(service);
    this.#unsubscribe = parts.usage.onCall((service, node) => this.#called(service, node));
  }

  onService({ before, after }: Pick<Extract<Applied, { table: 'service' }>, 'before' | 'after'>): void {
    const { id } = (after ?? before)!;
    if (!after?.spec.autoscale || after.removing) this.#followed.delete(id);
    else if (!this.#followed.has(id)) this.#follow(after);
    else if (!same(after.spec.autoscale, before?.spec.autoscale)) {
      // Other bounds count at once.
      this.#followed.get(id)!.scheduled = undefined;
      this.#look(after);
    }
  }

  /** What is to be written down of the service; undefined: nothing new. */
  wanted(service: Service): Autoscaled | undefined {
    const wanted = this.#followed.get(service.id)?.wanted;
    return wanted && wanted.replicas !== replicasOf(service) ? wanted : undefined;
  }

  stop(): void {
    this.#unsubscribe();
    this.#timer?.cancel();
  }

  #follow(service: Service): void {
    if (!service.spec.autoscale || service.removing) return;
    const sinceMs = this.#parts.clock.monotonic();
    this.#followed.set(service.id, {
      memory: freshMemory(replicasOf(service), sinceMs),
      sinceMs,
      scheduled: undefined,
      wanted: undefined,
    });
    this.#lookLater();
  }

  #lookLater(): void {
    this.#timer ??= this.#parts.clock.after(lookEveryMs, () => {
      this.#timer = undefined;
      for (const id of this.#followed.keys()) {
        const service = this.#parts.snapshot().service(id);
        if (service) this.#look(service);
      }
      if (this.#followed.size > 0) this.#lookLater();
    });
  }

  #called(id: ServiceId, node: NodeId): void {
    const snapshot = this.#parts.snapshot();
    const service = snapshot.service(id);
    if (service) this.#look(service, snapshot.node(node)?.name ?? node);
  }

  #look(service: Service, calledAt?: string): void {
    const followed = this.#followed.get(service.id);
    const spec = service.spec.autoscale;
    if (!followed || !spec) return;
    const { clock, usage, snapshot, changed } = this.#parts;
    const current = replicasOf(service);
    const nowMs = clock.monotonic();
    const changedAtMs = followed.memory.steps.at(-1)?.atMs ?? 0;
    const load = loadOf(service, snapshot(), usage, { nowMs, changedAtMs, sinceMs: followed.sinceMs });
    const range = this.#rangeOf(spec, followed);
    const { replicas, why, memory } = autoscale(spec, range, current, { ...load, calledAt }, followed.memory, nowMs);
    followed.memory = memory;
    followed.wanted = replicas === current ? undefined : { replicas, why, atMs: clock.now() };
    if (followed.wanted) changed(service.id);
  }

  #rangeOf(spec: Autoscale, followed: Followed): Range {
    const now = this.#parts.clock.now();
    if (!followed.scheduled || now >= followed.scheduled.untilMs) {
      followed.scheduled = scheduledRange(spec, this.#zones, now);
    }
    return followed.scheduled.range;
  }
}
