/** Named volumes: their tasks go where they are, they go to the trash and come back with their data, and that is gone for good only when it was said to be. */
import { applyService, createService } from '#control-plane/reconcilers/service-changes.ts';
import { discardServices, discardVolumes, emptyTrash, undo } from '#control-plane/reconcilers/trash.ts';
import { assert } from '#proto/kernel/errors.ts';
import { containerSpec, emptyMount, type ServiceSpec } from '#proto/model/service.ts';
import { isTerminal } from '#proto/model/task.ts';
import type { Volume } from '#proto/model/volume.ts';
import { aSpec, aTemplate } from '#test/support/builders.ts';
import type { Invariant } from '../invariants.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

const prefix = 'demo_vault';
/** Of each what it mounts: the first two share one, the last gives its own up where that is lost. */
const mounts: Readonly<Record<string, readonly string[]>> = {
  bank: [`${prefix}`],
  clerk: [`${prefix}`, `${prefix}_till`],
  cache: [`${prefix}_cache`],
};
const names = Object.keys(mounts);

const specOf = (name: string, image = 1): ServiceSpec =>
  aSpec(name, {
    replicas: name === 'cache' ? 2 : 1,
    volumeLoss: name === 'cache' ? 'recreate' : 'wait',
    template: aTemplate({
      container: containerSpec(`vault:${image}`, {
        mounts: mounts[name]!.map((volume) => emptyMount('volume', volume, `/${volume}`)),
      }),
    }),
  });

const wishes: readonly Wish[] = [
  {
    name: 'remove a service with its volumes, and take it back or not',
    make: (world) =>
      withNamed(world, names, ({ spec }) => {
        const volumes = world.random.int(3) > 0;
        const next = world.random.int(4);
        world.wish(`rm ${spec.name}${volumes ? ' --volumes' : ''}`, (context) => {
          const service = context.snapshot.serviceNamed(spec.project, spec.name);
          return service ? discardServices(context, [service], { volumes }) : [];
        });
        const empties = () =>
          world.wish('trash empty', (context) => [...emptyTrash(context, volumesInTrash(world)).changes]);
        world.clock.after(1_000 + world.random.int(4_000), () => {
          if (next === 0) wishUndo(world, spec.name);
          else if (next === 1) empties();
          else if (next === 2) {
            empties();
            world.clock.after(world.random.int(300), () => wishUndo(world, spec.name));
          }
          world.clock.after(2_000, () => apply(world, spec.name));
        });
      }),
  },
  {
    name: 'empty the trash',
    make(world) {
      world.wish('trash empty', (context) => [...emptyTrash(context, volumesInTrash(world)).changes]);
    },
  },
  {
    name: 'take a volume back',
    make(world) {
      const [name] = volumesInTrash(world);
      if (name) wishUndo(world, name);
    },
  },
  {
    name: 'throw a volume away',
    make(world) {
      const volumes = [...world.truth.all('volume')].filter(({ name }) => name.startsWith(prefix));
      const volume = volumes[world.random.int(Math.max(1, volumes.length))];
      if (volume) world.wish(`volume rm ${volume.name}`, (context) => discardVolumes(context, [volume.name]));
    },
  },
  {
    name: 'update what has volumes',
    make: (world) =>
      withNamed(world, names, ({ spec }) => {
        const next = specOf(spec.name, world.random.int(100));
        world.wish(`update ${spec.name}`, (context) => applyService(context, next));
      }),
  },
];

function volumesInTrash({ truth }: World): string[] {
  return [...truth.all('trash')].flatMap(({ item }) =>
    item.kind === 'volume' && item.volume.name.startsWith(prefix) ? [item.volume.name] : [],
  );
}

function wishUndo(world: World, name: string): void {
  world.wish(`undo ${name}`, (context) => [...undo(context, name).changes]);
}

function apply(world: World, name: string): void {
  if (world.truth.serviceNamed('demo', name)) return;
  world.wish(`apply ${name}`, (context) => applyService(context, specOf(name)));
}

const homeOf = ({ name, nodeId, createdAtMs }: Volume) => `${name} of ${createdAtMs} on ${nodeId}`;

function dataIsKept(): Invariant {
  /** Volumes that a task has had, as the store had them then. */
  const filled = new Set<string>();
  /** Where volumes were that began anew elsewhere: what such a node had stays there, and is found should the volume come back to it. */
  const left = new Set<string>();
  return {
    name: 'a volume has its data until it is said to be deleted, and has none of before then',
    mounted(host, task, { name, record }, found, { etcd }) {
      const now = etcd.get('volume', name)?.value;
      // The news of what its task is to be has not come yet.
      if (!name.startsWith(prefix) || now?.nodeId !== host.id || isTerminal(etcd.get('task', task)!.value.state))
        return;
      const isNew = !filled.has(homeOf(now));
      filled.add(homeOf(now));
      if (!found) assert(isNew, `${task} on ${host.name} finds nothing in ${name}, which had data`);
      else if (!left.has(`${name} ${host.id}`))
        assert(record && homeOf(record) === homeOf(now), `${task} on ${host.name} finds what ${name} was before`);
    },
    step({ changes }, { truth }) {
      for (const { table, before, after } of changes) {
        if (table !== 'volume' || !before || !before.name.startsWith(prefix)) continue;
        if (after) {
          if (after.nodeId !== before.nodeId) left.add(`${before.name} ${before.nodeId}`);
          continue;
        }
        const isEmptied = changes.some(
          (one) =>
            one.table === 'trash' &&
            !one.after &&
            one.before?.item.kind === 'volume' &&
            one.before.item.volume.name === before.name,
        );
        assert(isEmptied || !truth.node(before.nodeId), `${before.name} was forgotten, and is not in the trash`);
      }
    },
  };
}

/** Of the volumes that never begin anew, exactly those are on disk that the store says are there, as far as a task has had them. */
function unlikeStore({ hosts, truth, etcd }: World): string {
  for (const { id, name: host, mounts: disk } of hosts)
    for (const { name, record } of disk.volumes.values()) {
      const now = etcd.get('volume', name)?.value;
      if (!name.startsWith(prefix) || mounts.cache!.includes(name)) continue;
      if (now && record && homeOf(now) === homeOf(record) && now.nodeId === id) continue;
      return `${host} has ${name} on its disk, which ${now ? `is on ${now.nodeName}` : 'is no more'}`;
    }
  const name = names.find((name) => !truth.serviceNamed('demo', name));
  return name ? `${name} is not there` : '';
}

/** What of a service's volumes is on two nodes keeps it from both: an operator gives up what it alone has. */
function reunite(world: World): void {
  const [shared, own] = mounts.clerk!.map((name) => world.truth.get('volume', name)?.value.nodeId);
  if (own === undefined || own === shared) return;
  world.wish('clerk begins anew', (context) => {
    const service = context.snapshot.serviceNamed('demo', 'clerk');
    return service
      ? discardServices(context, [service], { volumes: true })
      : discardVolumes(context, [mounts.clerk![1]!]);
  });
}

/** Whatever is in the trash is deleted, and all services are there. */
function tidyUp(world: World): void {
  reunite(world);
  const empty = () => world.wish('trash empty', (context) => [...emptyTrash(context, volumesInTrash(world)).changes]);
  for (const ms of [0, 1_000]) world.clock.after(ms, empty);
  const again = () => {
    for (const name of names) apply(world, name);
  };
  for (const ms of [2_000, 15_000, 30_000, 45_000]) world.clock.after(ms, again);
}

export const volumes: Chapter = {
  name: 'volumes',
  wishes,
  begin(world) {
    for (const name of names) world.wish(`apply ${name}`, (context) => createService(context, specOf(name)));
  },
  tidyUp,
  invariants: () => [dataIsKept()],
  unsettled: unlikeStore,
};
