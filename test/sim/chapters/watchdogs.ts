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
    name: 'a leader that only its agents hear',
    strike(world) {
      const replica = world.leader;
      if (!replica?.run || world.replicas.length < 2) return undefined;
      const { store } = replica.run;
      const mends = othersThan(world, replica.name).flatMap((name) => [
        world.network.cut(replica.name, name),
        world.network.cut(name, replica.name),
      ]);
      store.setConnected(false);
      mendLater(world, [...mends, () => store.setConnected(true)]);
      return replica.name;
    },
  },
  {
    name: 'the control plane hears no host, or just one',
    strike(world) {
      const { leader, hosts, network, random, clock } = world;
      if (!leader) return undefined;
      const friend = random.int(3) === 0 ? aHost(world) : undefined;
      const ways = random.int(3) === 0 ? 'up' : 'both';
      const ms = 2_000 + random.int(28_000);
      const mends: (() => void)[] = [];
      let ended = false;
      // One after the other, so that each is missed, and asked for, at another time.
      for (const { name } of hosts) {
        if (name === friend?.name) continue;
        clock.after(random.int(2_000), () => {
          if (ended) return;
          mends.push(network.cut(name, leader.name));
          if (ways === 'both') mends.push(network.cut(leader.name, name));
        });
      }
      world.during(ms, () => {
        ended = true;
        for (const mend of mends) mend();
      });
      return `${leader.name}${friend ? ` but ${friend.name}` : ''}, ${ways}, ${ms} ms`;
    },
  },
  {
    name: 'a host comes back to the leader of before',
    strike(world) {
      const { leader } = world;
      const host = aHost(world);
      if (!leader?.run || world.replicas.length < 2) return undefined;
      const { store } = leader.run;
      const others = othersThan(world, leader.name);
      const cut = (one: string, names: readonly string[]) =>
        names.flatMap((name) => [world.network.cut(one, name), world.network.cut(name, one)]);
      const apart = cut(leader.name, others);
      store.setConnected(false);
      const mends = [...apart, () => store.setConnected(true)];
      // It finds the new leader meanwhile, loses that one, and finds the old one again.
      const away = cut(host.name, [leader.name]);
      world.clock.after(1_300 + world.random.int(700), () => {
        for (const mend of away) mend();
        const next = world.leader;
        if (!next || next === leader) return;
        next.crash();
        world.during(3_000, () => next.start());
      });
      world.during(4_500, () => {
        for (const mend of mends) mend();
      });
      return `${host.name} to ${leader.name}`;
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

/** Names of the other replicas. */
function othersThan({ replicas }: World, but: string): readonly string[] {
  return replicas.flatMap(({ name }) => (name === but ? [] : [name]));
}

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
