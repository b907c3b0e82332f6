/** What is deleted while a replica does not watch, and is compacted before it watches again: nobody tells it any more. */
import { createService, removeService } from '#control-plane/reconcilers/service-changes.ts';
import { aSpec } from '#test/support/builders.ts';
import type { SimFault } from '../faults.ts';
import type { Chapter } from '../plot.ts';
import type { World } from '../world.ts';

const name = 'brief';

const faults: readonly SimFault[] = [
  {
    name: 'a follower misses deletions, and etcd compacts them',
    strike(world) {
      const followers = world.replicas.filter((replica) => replica.run && replica !== world.leader);
      const follower = followers[world.random.int(Math.max(1, followers.length))];
      const run = follower?.run;
      if (!run) return undefined;
      apply(world);
      let ended = false;
      world.clock.after(700, () => {
        if (!ended) run.store.setConnected(false);
        remove(world);
      });
      world.during(4_000 + world.random.int(4_000), () => {
        ended = true;
        world.etcd.compact();
        run.store.setConnected(true);
      });
      return follower.name;
    },
  },
];

function apply(world: World): void {
  if (world.truth.serviceNamed('demo', name)) return;
  world.wish(`apply ${name}`, (context) => createService(context, aSpec(name, { replicas: 1 })));
}

function remove(world: World): void {
  const service = world.truth.serviceNamed('demo', name);
  if (service && !service.removing) world.wish(`rm ${name}`, (context) => removeService(context, service.id));
}

export const history: Chapter = { name: 'history', faults, tidyUp: remove };
