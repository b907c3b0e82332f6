/** Updates that come before the one before has come up: a revision that never works must not stay where newer ones overtake it. */
import { createService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import { containerSpec, type ServiceSpec } from '#proto/model/service.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import { stuck } from '../host.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

const names = ['hare', 'hound'];

const specOf = (name: string, image: string, isStuck = false): ServiceSpec =>
  aSpec(name, {
    replicas: name === 'hare' ? 1 : 2,
    template: aTemplate({ container: containerSpec(image, { command: isStuck ? [stuck] : [] }) }),
    update: { ...aSpec(name).update, order: 'start-first', parallelism: 0, failureAction: 'continue', monitorMs: 0 },
  });

const wishes: readonly Wish[] = [
  {
    name: 'updates of which at best the last can work',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => {
        const number = world.random.int(1_000);
        const update = (next: ServiceSpec) =>
          world.wish(`update ${spec.name}`, (context) => updateService(context, id, next));
        update(specOf(spec.name, `stuck:${number}`, true));
        const againMs = 200 + world.random.int(2_000);
        world.clock.after(againMs, () => update(specOf(spec.name, `late:${number}`, true)));
        const works = world.random.int(2) === 0;
        world.clock.after(2 * againMs, () => update(specOf(spec.name, `last:${number}`, !works)));
      }),
  },
];

/** The last word is one that can work, also where etcd took another one last. */
function tidyUp(world: World): void {
  for (const name of names)
    withNamed(world, [name], ({ id }) =>
      world.wish(`update ${name}`, (context) => updateService(context, id, specOf(name, 'works:1'))),
    );
}

export const overtaking: Chapter = {
  name: 'overtaking',
  wishes,
  begin(world) {
    for (const name of names) world.wish(`apply ${name}`, (context) => createService(context, specOf(name, 'works:1')));
  },
  tidyUp,
};
