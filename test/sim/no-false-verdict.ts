/** The promise about verdicts: no host counts as down whose kernel lives and is heard, by the leader or by most of the hosts that could ask. */
import { assert } from '#proto/kernel/errors.ts';
import type { Host } from './host.ts';
import type { Invariant } from './invariants.ts';
import type { World } from './world.ts';

/** A verdict stands on what was heard so long ago at most: rounds of probes, the grace of a new leader, and a slow commit. */
const staleMs = 6_500;

export function noFalseVerdict(): Invariant {
  /** When each host was last not to be heard, or was back for so short that nobody could know. */
  const unheardAtMs = new Map<string, number>();
  const note = (world: World) => {
    const now = world.clock.monotonic();
    for (const host of world.hosts) if (!isHeard(world, host)) unheardAtMs.set(host.name, now);
  };
  return {
    name: 'no host is down whose kernel answers the leader or most others',
    look: note,
    step({ changes }, world) {
      for (const { table, before, after } of changes) {
        if (table !== 'node' || after?.state !== 'down' || !before || before.state === 'down') continue;
        const host = world.hosts.find(({ id }) => id === after.id);
        if (!host) continue;
        note(world);
        const heardMs = world.clock.monotonic() - (unheardAtMs.get(host.name) ?? 0);
        assert(
          heardMs < staleMs,
          `${host.name} is down, and its kernel has answered for ${heardMs} ms: ${after.message}`,
        );
      }
    },
  };
}

/** Its machine runs, and packets go to and fro between it and the leader, or most of the hosts that the leader can ask. */
function isHeard(world: World, host: Host): boolean {
  const { leader, hosts, network } = world;
  if (!leader?.run || !host.boot?.machine.running) return false;
  const isClear = (one: string, other: string) =>
    !network.isCut(one, other) && !network.isCut(other, one) && !network.isPoor(one) && !network.isPoor(other);
  if (isClear(leader.name, host.name)) return true;
  const peers = hosts.filter(
    (peer) => peer !== host && peer.boot?.watchdog?.process?.running && isClear(leader.name, peer.name),
  );
  const hearing = peers.filter((peer) => isClear(peer.name, host.name));
  return hearing.length * 2 > peers.length;
}
