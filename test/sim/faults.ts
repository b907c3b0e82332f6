/** All that can go wrong, one named thing each: it strikes now and ends by itself, or when the world is mended. */
import { Fault } from '#proto/kernel/errors.ts';
import type { Host } from './host.ts';
import type { Replica } from './replica.ts';
import type { World } from './world.ts';

export interface SimFault {
  readonly name: string;
  /** What was struck, for the trace; undefined where there was nothing to strike. */
  strike(world: World): string | undefined;
}

export const faults: readonly SimFault[] = [
  {
    name: 'power off',
    strike(world) {
      const host = aHost(world);
      if (!host?.boot) return undefined;
      host.powerOff();
      // What was written last may still have been in the cache.
      const torn = world.random.int(3) === 0 ? world.random.int(600) : 0;
      if (torn > 0) host.tearDisk(torn);
      world.during(200 + world.random.int(10_000), () => host.powerOn());
      return `${host.name}${torn > 0 ? `, whose journal loses ${torn} bytes` : ''}`;
    },
  },
  {
    name: 'power off, and the disk is another',
    strike(world) {
      const host = aHost(world);
      if (!host?.boot) return undefined;
      const by = world.random.int(2) === 0 ? 'nothing' : 'backup';
      host.powerOff();
      host.replaceDisk(by);
      world.during(200 + world.random.int(10_000), () => host.powerOn());
      return `${host.name}, by ${by}`;
    },
  },
  {
    name: 'machine suspended',
    strike(world) {
      const host = aHost(world);
      if (!host?.boot) return undefined;
      world.during(100 + world.random.int(8_000), host.suspend());
      return host.name;
    },
  },
  {
    name: 'agent killed behind a cut cable',
    strike(world) {
      const host = aHost(world);
      if (!host?.process) return undefined;
      // Nobody hears that it ended: its old session stays, beside the one it comes back with.
      const mends = world.replicas.flatMap(({ name }) => [
        world.network.cut(host.name, name),
        world.network.cut(name, host.name),
      ]);
      host.crashAgent();
      world.during(100 + world.random.int(2_000), () => {
        for (const mend of mends) mend();
        host.startAgent();
      });
      return host.name;
    },
  },
  {
    name: 'agent killed',
    strike(world) {
      const host = aHost(world);
      if (!host?.process) return undefined;
      host.crashAgent();
      world.during(world.random.int(5_000), () => host.startAgent());
      return host.name;
    },
  },
  {
    name: 'agent dies as it starts a container',
    strike(world) {
      const host = aHost(world);
      if (!host?.process) return undefined;
      host.doomed = true;
      world.during(4_000, () => {
        host.doomed = false;
        host.startAgent();
      });
      return host.name;
    },
  },
  {
    name: 'agent stopped',
    strike(world) {
      const host = aHost(world);
      const process = host?.process;
      if (!host || !process) return undefined;
      process.pause();
      world.during(200 + world.random.int(6_000), () => process.resume());
      return host.name;
    },
  },
  {
    name: 'cable cut',
    strike: (world) => cut(world, aHost(world), world.replicas, ['up', 'down']),
  },
  {
    name: 'nothing gets from the host',
    strike: (world) => cut(world, aHost(world), world.replicas, ['up']),
  },
  {
    name: 'nothing gets to the host',
    strike: (world) => cut(world, aHost(world), world.replicas, ['down']),
  },
  {
    name: 'host and one replica do not hear each other',
    strike: (world) => cut(world, aHost(world), [aReplica(world)], ['up', 'down']),
  },
  {
    name: 'replica alone',
    strike(world) {
      const one = aReplica(world);
      const others = [...world.replicas.filter((other) => other !== one), ...world.hosts];
      const mends = others.flatMap(({ name }) => [
        world.network.cut(one.name, name),
        world.network.cut(name, one.name),
      ]);
      world.during(100 + world.random.int(8_000), () => {
        for (const mend of mends) mend();
      });
      return one.name;
    },
  },
  {
    name: 'two halves',
    strike(world) {
      const machines = [...world.replicas, ...world.hosts].map(({ name }) => ({
        name,
        left: world.random.int(2) === 0,
      }));
      const mends = machines.flatMap((one) =>
        machines.filter(({ left }) => left !== one.left).map((other) => world.network.cut(one.name, other.name)),
      );
      world.during(100 + world.random.int(8_000), () => {
        for (const mend of mends) mend();
      });
      return machines.map(({ name, left }) => `${left ? '' : '-'}${name}`).join(' ');
    },
  },
  {
    name: 'cable that loses packets',
    strike(world) {
      const { name } = world.random.int(3) === 0 ? aReplica(world) : aHost(world)!;
      const percent = 5 + world.random.int(40);
      world.network.lose(name, percent);
      world.during(500 + world.random.int(6_000), () => world.network.lose(name, 0));
      return `${name}, ${percent} %`;
    },
  },
  {
    name: 'link flaps',
    strike(world) {
      const host = aHost(world)!;
      const ends = world.replicas.flatMap(({ name }) => [
        [host.name, name],
        [name, host.name],
      ]);
      let flaps = 0;
      const flap = () => {
        const mends = ends.map(([from, to]) => world.network.cut(from!, to!));
        world.during(500, () => {
          for (const mend of mends) mend();
          if (++flaps < 6) world.clock.after(500, flap);
        });
      };
      flap();
      return host.name;
    },
  },
  {
    name: 'slow line',
    strike(world) {
      const { name } = world.random.int(3) === 0 ? aReplica(world) : aHost(world)!;
      world.network.slow(name, 20 + world.random.int(600));
      world.during(3_000, () => world.network.slow(name, 0));
      return name;
    },
  },
  {
    name: 'connections reset',
    strike(world) {
      const { name } = world.random.int(3) === 0 ? aReplica(world) : aHost(world)!;
      world.network.reset(name);
      return name;
    },
  },
  {
    name: 'process killed',
    strike(world) {
      const host = aHost(world);
      const live = host?.live() ?? [];
      const victim = live[world.random.int(Math.max(1, live.length))];
      if (!victim) return undefined;
      host!.boot!.containers.end(victim.id, 137);
      return `${victim.id} on ${host!.name}`;
    },
  },
  {
    name: 'replica killed',
    strike(world) {
      const replica = aReplica(world);
      if (!replica.run) return undefined;
      replica.crash();
      world.during(100 + world.random.int(8_000), () => replica.start());
      return replica.name;
    },
  },
  {
    name: 'leader killed',
    strike(world) {
      const replica = world.leader;
      if (!replica) return undefined;
      replica.crash();
      world.during(100 + world.random.int(8_000), () => replica.start());
      return replica.name;
    },
  },
  {
    name: 'leader dies between two writes',
    strike(world) {
      const replica = world.leader;
      if (!replica?.run) return undefined;
      const when = world.random.int(2) === 0 ? 'before' : 'after';
      const commits = world.random.int(3);
      const spare = replica.doom(commits, when);
      world.during(1_000 + world.random.int(5_000), () => {
        spare();
        replica.start();
      });
      return `${replica.name}, ${when} its commit ${commits + 1}`;
    },
  },
  {
    name: 'replica stopped',
    strike(world) {
      const { name, run } = aReplica(world);
      if (!run) return undefined;
      run.process.pause();
      run.store.setConnected(false);
      world.during(200 + world.random.int(5_000), () => {
        run.process.resume();
        run.store.setConnected(true);
      });
      return name;
    },
  },
  {
    name: 'replica without etcd',
    strike(world) {
      const { name, run } = aReplica(world);
      if (!run) return undefined;
      run.store.setConnected(false);
      const compacted = world.random.int(2) === 0;
      world.during(200 + world.random.int(6_000), () => {
        if (compacted) world.etcd.compact();
        run.store.setConnected(true);
      });
      return `${name}${compacted ? ', and etcd compacts meanwhile' : ''}`;
    },
  },
  {
    name: 'view is stale',
    strike: (world) => obscure(world, false),
  },
  {
    name: 'view misses what happens',
    strike: (world) => obscure(world, true),
  },
  {
    name: 'history is compacted',
    strike(world) {
      world.etcd.compact();
      return `up to revision ${world.etcd.revision}`;
    },
  },
  {
    name: 'commit fails',
    strike(world) {
      const { name, run } = world.leader ?? aReplica(world);
      if (!run) return undefined;
      const code = (['conflict', 'unavailable', 'exhausted', 'timeout'] as const)[world.random.int(4)]!;
      const applied = code === 'timeout' && world.random.int(2) === 0;
      run.store.failNext({ fault: new Fault(code, 'injected'), applied });
      return `${name}: ${code}${applied ? ', but it was applied' : ''}`;
    },
  },
  {
    name: 'slow etcd',
    strike(world) {
      const { etcd, random } = world;
      const usualMs = etcd.commitMs;
      if (usualMs > 10) return undefined;
      etcd.commitMs = 50 + random.int(600);
      world.during(500 + random.int(4_000), () => {
        etcd.commitMs = usualMs;
      });
      return `${etcd.commitMs} ms`;
    },
  },
  {
    name: 'etcd is full',
    strike: (world) => refuse(world, new Fault('exhausted', 'etcdserver: mvcc: database space exceeded')),
  },
  {
    name: 'etcd has no leader',
    strike: (world) => refuse(world, new Fault('unavailable', 'etcdserver: no leader')),
  },
  {
    name: 'registry fails',
    strike(world) {
      const { registry, random } = world;
      const code = (['unavailable', 'not-found'] as const)[random.int(2)]!;
      registry.failure = new Fault(code, 'the registry is not itself');
      world.during(300 + random.int(5_000), () => {
        registry.failure = undefined;
      });
      return code;
    },
  },
  {
    name: 'kernel refuses network',
    strike(world) {
      const host = aHost(world);
      const network = host?.boot?.network;
      if (!host || !network) return undefined;
      network.fail(new Fault('unavailable', 'no buffer space available'));
      world.during(100 + world.random.int(3_000), () => network.fail(undefined));
      return host.name;
    },
  },
  {
    name: "a replica's clock jumps",
    strike(world) {
      const { name, run } = aReplica(world);
      if (!run) return undefined;
      run.process.skewMs = world.random.int(3_000) - 1_500;
      world.during(1_000 + world.random.int(8_000), () => {
        run.process.skewMs = 0;
      });
      return `${name} by ${run.process.skewMs} ms`;
    },
  },
  {
    name: "a host's clock jumps",
    strike(world) {
      const host = aHost(world);
      if (!host) return undefined;
      const set = (ms: number) => {
        host.skewMs = ms;
        if (host.process) host.process.skewMs = ms;
      };
      set(world.random.int(20_000) - 10_000);
      world.during(1_000 + world.random.int(8_000), () => set(0));
      return `${host.name} by ${host.skewMs} ms`;
    },
  },
];

function aHost({ hosts, random }: World): Host | undefined {
  return hosts[random.int(hosts.length)];
}

function aReplica({ replicas, random }: World): Replica {
  return replicas[random.int(replicas.length)]!;
}

function obscure(world: World, blind: boolean): string | undefined {
  const { name, run } = aReplica(world);
  if (!run) return undefined;
  run.view.obscure(blind);
  world.during(100 + world.random.int(3_000), () => run.view.clear());
  return name;
}

function refuse(world: World, fault: Fault): string | undefined {
  const { etcd } = world;
  if (etcd.refusal) return undefined;
  etcd.refusal = fault;
  world.during(300 + world.random.int(5_000), () => {
    etcd.refusal = undefined;
  });
  return fault.message;
}

function cut(
  world: World,
  host: Host | undefined,
  replicas: readonly Replica[],
  directions: readonly ('up' | 'down')[],
): string | undefined {
  if (!host) return undefined;
  const { network, random } = world;
  const mends = replicas.flatMap((replica) =>
    directions.map((way) =>
      way === 'up' ? network.cut(host.name, replica.name) : network.cut(replica.name, host.name),
    ),
  );
  world.during(100 + random.int(8_000), () => {
    for (const mend of mends) mend();
  });
  return `${host.name} and ${replicas.map(({ name }) => name).join(' ')}`;
}
