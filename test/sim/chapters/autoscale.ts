/** Services that are scaled by what their tasks do, also to none, while the load changes. */
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { assert } from '#proto/kernel/errors.ts';
import { replicasOf } from '#proto/model/autoscale.ts';
import { anAutoscale, aSpec } from '#test/support/builders.ts';
import type { Invariant } from '../invariants.ts';
import type { Chapter } from '../plot.ts';
import type { Wish } from '../workload.ts';
import type { World } from '../world.ts';

const busy = aSpec('busy', { replicas: 2, autoscale: anAutoscale({ max: 6 }) });
const sleepy = aSpec('sleepy', {
  replicas: 1,
  autoscale: anAutoscale({ min: 0, max: 2, cpuPercent: 0, idleMs: 5_000 }),
});

const wishes: readonly Wish[] = [
  {
    name: 'load',
    make(world) {
      world.load(([5, 40, 70, 150, 400] as const)[world.random.int(5)]!);
    },
  },
  {
    name: 'call of a service that may sleep',
    make(world) {
      const host = world.hosts[world.random.int(world.hosts.length)]!;
      const service = world.truth.serviceNamed('demo', 'sleepy');
      if (!service || !host.boot) return;
      world.trace.note(`somebody calls sleepy at ${host.name}`);
      host.boot.network.call(service.id);
    },
  },
];

const withinBounds: Invariant = {
  name: 'an autoscaled service has no fewer and no more tasks than it may',
  step({ changes }) {
    for (const { table, after } of changes) {
      if (table !== 'service' || !after?.spec.autoscale) continue;
      const { min, max } = after.spec.autoscale;
      const replicas = replicasOf(after);
      assert(replicas >= min && replicas <= max, `${after.spec.name} is to have ${replicas}`);
    }
  },
};

/** By the leader's clock, which may have jumped; another leader begins anew with what there is. */
const stabilizationMs = 60_000 - 4_000;

function fallsSlowly(): Invariant {
  const grownAtMs = new Map<string, { readonly atMs: number; readonly epoch: number }>();
  return {
    name: 'what was just added is not taken away again at once',
    step({ changes }, { clock, epoch }) {
      for (const { table, key, before, after } of changes) {
        if (table !== 'service' || !before?.spec.autoscale?.cpuPercent || !after?.spec.autoscale) continue;
        const [from, to] = [replicasOf(before), replicasOf(after)];
        const now = clock.monotonic();
        if (to > from) grownAtMs.set(key, { atMs: now, epoch });
        const grown = grownAtMs.get(key);
        if (to >= from || grown?.epoch !== epoch) continue;
        assert(now - grown.atMs >= stabilizationMs, `${after.spec.name} fell after ${now - grown.atMs} ms`);
      }
    },
  };
}

function begin(world: World): void {
  for (const spec of [busy, sleepy]) world.wish(`apply ${spec.name}`, (context) => createService(context, spec));
}

export const autoscaling: Chapter = {
  name: 'autoscaling',
  wishes,
  begin,
  invariants: () => [withinBounds, fallsSlowly()],
};
