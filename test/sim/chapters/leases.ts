/** Singletons, whose nodes hold leases: what goes wrong in just the moments that those are about. */
import { leaseMs, marginMs } from '#control-plane/reconcilers/fence.ts';
import { createService, restartService } from '#control-plane/reconcilers/service-changes.ts';
import { occupiesNode } from '#proto/model/task.ts';
import { aSpec } from '#test/support/builders.ts';
import type { SimFault } from '../faults.ts';
import type { Host } from '../host.ts';
import type { Chapter } from '../plot.ts';
import { type Wish, withNamed } from '../workload.ts';
import type { World } from '../world.ts';

const names = ['solo', 'sole'];

const faults: readonly SimFault[] = [
  {
    name: 'answers come later and later, and then nothing gets from the host',
    strike(world) {
      const host = whereOneRuns(world);
      if (!host) return undefined;
      const { random, clock, network, replicas } = world;
      const mostMs = 1_500 + random.int(2_500);
      let lagMs = 0;
      let ended = false;
      const lag = (ms: number) => {
        for (const { name } of replicas) network.lag(name, host.name, ms);
      };
      const grow = () => {
        if (ended) return;
        lagMs = Math.min(mostMs, lagMs + 300);
        lag(lagMs);
        if (lagMs < mostMs) clock.after(200, grow);
        else cutUp();
      };
      const cutUp = () => {
        const mends = everybodyBut(world, host).map((name) => network.cut(host.name, name));
        world.during(leaseMs + marginMs + 500 + random.int(3_000), () => {
          for (const mend of mends) mend();
        });
      };
      grow();
      world.during(10_000, () => {
        ended = true;
        lag(0);
      });
      return `${host.name}, up to ${mostMs} ms`;
    },
  },
  {
    name: 'a node loses its lease with a singleton that is still to begin',
    strike(world) {
      const { random, clock, network, hosts } = world;
      const name = names[random.int(names.length)]!;
      const service = world.truth.serviceNamed('demo', name);
      if (!service) return undefined;
      const struckAtMs = clock.now();
      const slowMs = 3_000 + random.int(3_000);
      const cutMs = leaseMs + marginMs + 500 + random.int(3_000);
      for (const host of hosts) host.slowMs = slowMs;
      world.during(12_000, () => {
        for (const host of hosts) host.slowMs = 0;
      });
      world.wish(`restart ${name}`, (context) => restartService(context, service.id));
      const isBeginning = (host: Host) =>
        [...world.truth.tasksOnNode(host.id)].some(
          (task) => task.serviceId === service.id && task.createdAtMs >= struckAtMs && task.state !== 'running',
        );
      const look = (left: number) => {
        const host = hosts.find((host) => host.connected && isBeginning(host));
        if (!host) {
          if (left > 0) clock.after(50, () => look(left - 1));
          return;
        }
        clock.after(150 + random.int(300), () => {
          for (const other of hosts) if (other !== host) other.slowMs = 0;
          const mends = everybodyBut(world, host).flatMap((name) => [
            network.cut(host.name, name),
            network.cut(name, host.name),
          ]);
          world.trace.note(`${host.name} is cut off`);
          world.during(cutMs, () => {
            for (const mend of mends) mend();
          });
        });
      };
      look(100);
      return `${name}, ${cutMs} ms`;
    },
  },
];

const wishes: readonly Wish[] = [
  {
    name: 'restart a singleton',
    make: (world) =>
      withNamed(world, names, ({ id, spec }) =>
        world.wish(`restart ${spec.name}`, (context) => restartService(context, id)),
      ),
  },
];

/** The machine of a singleton that is up. */
function whereOneRuns(world: World): Host | undefined {
  const hosts = world.hosts.filter((host) =>
    [...world.truth.tasksOnNode(host.id)].some(
      (task) => task.singleton && occupiesNode(task) && task.state === 'running',
    ),
  );
  return hosts[world.random.int(Math.max(1, hosts.length))];
}

function everybodyBut({ hosts, replicas }: World, but: Host): readonly string[] {
  return [...hosts, ...replicas].flatMap(({ name }) => (name === but.name ? [] : [name]));
}

export const leases: Chapter = {
  name: 'leases',
  faults,
  wishes,
  begin(world) {
    for (const name of names)
      world.wish(`apply ${name}`, (context) =>
        createService(context, aSpec(name, { replicas: 1, failover: 'singleton' })),
      );
  },
};
