/** Networks that are made and removed, services that join and leave them under other names, and what every name means everywhere. */
import { NetworkWish, removeNetwork } from '#control-plane/reconcilers/network-changes.ts';
import { createService, updateService, type WishContext } from '#control-plane/reconcilers/service-changes.ts';
import type { Change } from '#control-plane/store/records.ts';
import { assert } from '#proto/kernel/errors.ts';
import type { NetworkAttachment, NetworkSpec } from '#proto/model/network.ts';
import type { ServiceSpec } from '#proto/model/service.ts';
import { occupiesNode } from '#proto/model/task.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import type { Invariant } from '../invariants.ts';
import { nameOf } from '../named.ts';
import { wrongNames } from '../names-oracle.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

/** Made by hand; one with addresses of its own. */
const specs: readonly NetworkSpec[] = ['front', 'back', 'own'].map((name, index) => ({
  name,
  project: '',
  driver: 'cluster',
  internal: index === 1,
  ipv6: false,
  encrypted: false,
  subnets: name === 'own' ? [{ subnet: '10.77.0.0/24', gateway: '', ipRange: '', reserved: [] }] : [],
  parent: '',
  labels: {},
}));
const names = ['desk', 'shop', 'yard'];

/** On those that are there. */
function joined(
  context: WishContext,
  networks: readonly NetworkAttachment[],
  changes: (of: NetworkAttachment[]) => Change[],
) {
  const there = networks.filter(({ network }) => context.snapshot.get('network', network));
  const wish = new NetworkWish(context);
  wish.join();
  return [...wish.changes, ...changes(there)];
}

function randomNetworks({ random }: World, service: string): NetworkAttachment[] {
  return specs.flatMap(({ name: network }) => {
    const aliases = random.int(2) === 0 ? [`${service}-in-${network}`] : [];
    return random.int(2) === 0 ? [{ network, aliases, ipv4Address: '' }] : [];
  });
}

const wishes: readonly Wish[] = [
  {
    name: 'make a network',
    make(world) {
      const spec = specs[world.random.int(specs.length)]!;
      world.wish(`network create ${spec.name}`, (context) => {
        const wish = new NetworkWish(context);
        wish.apply(spec);
        return [...wish.changes];
      });
    },
  },
  {
    name: 'remove a network',
    make(world) {
      const { name } = specs[world.random.int(specs.length)]!;
      world.wish(`network rm ${name}`, (context) => removeNetwork(context, name));
    },
  },
  {
    name: 'join and leave networks',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => {
        const networks = randomNetworks(world, spec.name);
        world.wish(`networks of ${spec.name}: ${networks.map(({ network }) => network)}`, (context) =>
          joined(context, networks, (of) =>
            updateService(context, id, { ...spec, template: { ...spec.template, networks: of } }),
          ),
        );
      }),
  },
  {
    name: 'other aliases',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) => {
        const aliases = world.random.int(2) === 0 ? [`${spec.name}-${world.random.int(3)}`] : [];
        world.wish(`aliases of ${spec.name}: ${aliases}`, (context) =>
          updateService(context, id, { ...spec, aliases }),
        );
      }),
  },
];

const networkAddressesAreUnique: Invariant = {
  name: 'no address of a network means two tasks, and who is on a network keeps it',
  step({ changes }, { truth }) {
    if (!changes.some(({ table }) => table === 'task' || table === 'network')) return;
    const holders = new Map<string, string>();
    for (const task of truth.all('task')) {
      if (!occupiesNode(task) || !names.includes(task.serviceName)) continue;
      for (const { network, address } of task.addresses) {
        assert(truth.get('network', network), `${nameOf(task)} is on ${network}, which is gone`);
        const other = holders.get(`${network} ${address}`);
        assert(!other, `${address} of ${network} is held by ${other} and ${nameOf(task)}`);
        holders.set(`${network} ${address}`, nameOf(task));
      }
    }
  },
};

function begin(world: World): void {
  for (const spec of specs)
    world.wish(`network create ${spec.name}`, (context) => {
      const wish = new NetworkWish(context);
      wish.apply(spec);
      return [...wish.changes];
    });
  for (const [index, name] of names.entries()) {
    const networks = randomNetworks(world, name);
    const service = (of: NetworkAttachment[]): ServiceSpec =>
      aSpec(name, {
        replicas: 2,
        endpointMode: index === 2 ? 'dnsrr' : 'vip',
        template: aTemplate({ networks: of }),
      });
    world.wish(`apply ${name}`, (context) => joined(context, networks, (of) => createService(context, service(of))));
  }
}

export const networks: Chapter = {
  name: 'networks',
  wishes,
  begin,
  invariants: () => [networkAddressesAreUnique],
  unsettled: ({ hosts, truth }) => hosts.map((host) => wrongNames(truth, host)).find((wrong) => wrong !== '') ?? '',
};
