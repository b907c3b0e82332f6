/** Updates to images that nobody has, of services that stop first: whoever runs goes on, and what is there follows. */
import { NetworkWish } from '#control-plane/reconcilers/network-changes.ts';
import { createService, restartService, updateService } from '#control-plane/reconcilers/service-changes.ts';
import type { NetworkSpec } from '#proto/model/network.ts';
import { containerSpec, type ServiceSpec } from '#proto/model/service.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

const names = ['oak', 'elm', 'fir', 'yew'];
/** Made by hand; an address of it is yew's alone. */
const grove: NetworkSpec = {
  name: 'grove',
  project: '',
  driver: 'cluster',
  internal: false,
  ipv6: false,
  encrypted: false,
  subnets: [{ subnet: '10.78.0.0/24', gateway: '', ipRange: '', reserved: [] }],
  parent: '',
  labels: {},
};

const specOf = (name: string, image: string): ServiceSpec =>
  aSpec(name, {
    replicas: name === 'oak' ? 3 : 1,
    failover: name === 'fir' ? 'singleton' : 'prompt',
    template: aTemplate({
      container: containerSpec(image),
      networks: name === 'yew' ? [{ network: grove.name, aliases: [], ipv4Address: '10.78.0.9' }] : [],
      reservations: { cpuMillis: 300, memoryBytes: 0, pids: 0, generic: [] },
    }),
    update: {
      ...aSpec(name).update,
      order: 'stop-first',
      parallelism: name === 'oak' ? 2 : 1,
      failureAction: name === 'elm' ? 'pause' : 'rollback',
      monitorMs: 500,
    },
  });

function update(world: World, image: string): void {
  withNamed(world, names, ({ id, spec }) =>
    world.wish(`update ${spec.name} to ${image}`, (context) => updateService(context, id, specOf(spec.name, image))),
  );
}

const wishes: readonly Wish[] = [
  { name: 'update to an image that nobody has', make: (world) => update(world, `missing:${world.random.int(1_000)}`) },
  { name: 'update to an image that is there', make: (world) => update(world, `works:${world.random.int(1_000)}`) },
  {
    name: 'restart what may have a wrong image',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) =>
        world.wish(`restart ${spec.name}`, (context) => restartService(context, id)),
      ),
  },
];

export const images: Chapter = {
  name: 'images',
  wishes,
  begin(world) {
    world.registry.lacks = (name) => name.includes('missing');
    world.wish(`network create ${grove.name}`, (context) => {
      const wish = new NetworkWish(context);
      wish.apply(grove);
      return [...wish.changes];
    });
    for (const name of names) world.wish(`apply ${name}`, (context) => createService(context, specOf(name, 'works:1')));
  },
  tidyUp(world) {
    for (const name of names)
      withNamed(world, [name], ({ id }) =>
        world.wish(`update ${name}`, (context) => updateService(context, id, specOf(name, 'works:1'))),
      );
  },
};
