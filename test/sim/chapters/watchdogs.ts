/** Hosts of which something is heard when their agents are not: watchdogs, kernels, and what other hosts hear of them. */
import type { SimFault } from '../faults.ts';
import type { Host } from '../host.ts';
import { noFalseVerdict } from '../no-false-verdict.ts';
import type { Chapter } from '../plot.ts';
import type { World } from '../world.ts';

const faults: readonly SimFault[] = [
  {
    name: 'watchdog killed',
    strike(world) {
      const host = aHost(world);
      if (!host.boot?.watchdog?.process) return undefined;
      host.boot.watchdog.kill();
      return host.name;
    },
  },
  {
    name: 'watchdog stopped',
    strike(world) {
      const host = aHost(world);
      const process = host.boot?.watchdog?.process;
      if (!process?.running) return undefined;
      host.boot!.watchdog!.stop();
      world.during(500 + world.random.int(5_000), () => process.resume());
      return host.name;
    },
  },
  {
    name: 'agent and watchdog killed',
    strike(world) {
      const host = aHost(world);
      if (!host.process || !host.boot?.watchdog) return undefined;
      host.crashAgent();
      host.boot.watchdog.kill();
      world.during(200 + world.random.int(9_000), () => host.startAgent());
      return host.name;
    },
  },
  {
    name: 'agent hangs',
    strike(world) {
      const host = aHost(world);
      const { process } = host;
      if (!process?.running) return undefined;
      host.hangs = true;
      process.pause();
      world.during(500 + world.random.int(9_000), () => {
        host.hangs = false;
        process.resume();
      });
      return host.name;
    },
  },
  {
    name: 'cable cut to everybody',
    strike: (world) => cutOff(world, 'both'),
  },
  {
    name: 'nothing gets from the host to anybody',
    strike: (world) => cutOff(world, 'up'),
  },
  {
    name: 'nothing gets to the host from anybody',
    strike: (world) => cutOff(world, 'down'),
  },
  {
    name: 'host is heard by one other host alone',
    strike(world) {
      const host = aHost(world);
      const friend = aHost(world);
      if (friend === host) return undefined;
      const others = machines(world, host).filter((name) => name !== friend.name);
      mendLater(
        world,
        others.flatMap((name) => [world.network.cut(host.name, name), world.network.cut(name, host.name)]),
      );
      return `${host.name} by ${friend.name}`;
    },
  },
  {
    name: 'one stream falls behind the others',
    strike(world) {
      const host = aHost(world);
      return world.network.hinder(host.name, 200 + world.random.int(2_500)) ? host.name : undefined;
    },
  },
];

function cutOff(world: World, way: 'up' | 'down' | 'both'): string {
  const host = aHost(world);
  const mends = machines(world, host).flatMap((name) => [
    ...(way === 'down' ? [] : [world.network.cut(host.name, name)]),
    ...(way === 'up' ? [] : [world.network.cut(name, host.name)]),
  ]);
  mendLater(world, mends);
  return host.name;
}

function mendLater(world: World, mends: readonly (() => void)[]): void {
  world.during(100 + world.random.int(8_000), () => {
    for (const mend of mends) mend();
  });
}

function machines({ hosts, replicas }: World, but: Host): readonly string[] {
  return [...hosts, ...replicas].flatMap(({ name }) => (name === but.name ? [] : [name]));
}

function aHost({ hosts, random }: World): Host {
  return hosts[random.int(hosts.length)]!;
}

export const watchdogs: Chapter = { name: 'watchdogs', faults, invariants: () => [noFalseVerdict()] };
