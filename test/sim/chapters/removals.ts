/** Services that are removed together, in the order of what depends on what, while one of them is not to be removed after all. */
import { createService } from '#control-plane/reconcilers/service-changes.ts';
import { discardServices, undo } from '#control-plane/reconcilers/trash.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { aSpec } from '#test/support/builders.ts';
import type { Chapter } from '../plot.ts';
import type { Wish } from '../workload.ts';
import type { World } from '../world.ts';

/** Each depends on the one before it. */
const names = ['root', 'stem', 'leaf'];

const specOf = (name: string): ServiceSpec => {
  const service = names[names.indexOf(name) - 1];
  const on = { condition: 'service_started', restart: false, required: false } as const;
  return aSpec(name, { replicas: 1, dependsOn: service === undefined ? [] : [{ service, ...on }] });
};

const wishes: readonly Wish[] = [
  {
    name: 'remove all of them, and take one back',
    make(world) {
      const standing = names.flatMap((name) => world.truth.serviceNamed('demo', name) ?? []);
      if (standing.length < names.length || standing.some(({ removing }) => removing)) {
        applyMissing(world);
        return;
      }
      world.wish(`rm ${names.join(' ')}`, (context) => discardServices(context, standing));
      const spared = names[1 + world.random.int(names.length - 1)]!;
      world.clock.after(50 + world.random.int(1_500), () =>
        world.wish(`undo ${spared}`, (context) => [...undo(context, spared).changes]),
      );
    },
  },
];

function applyMissing(world: World): void {
  for (const name of names) {
    if (world.truth.serviceNamed('demo', name)) continue;
    world.wish(`apply ${name}`, (context) => createService(context, specOf(name)));
  }
}

export const removals: Chapter = { name: 'removals', wishes, begin: applyMissing };
