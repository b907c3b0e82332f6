/** The promises about verdicts: no host counts as down whose kernel lives and is heard, by the leader or by most of the hosts that could ask, nor any while none can be heard, and where most fall silent at once none does so soon. */
import { massSilenceMs, quietMs } from '#control-plane/reconcilers/node-health.ts';
import type { Applied } from '#control-plane/store/records.ts';
import { assert } from '#proto/kernel/errors.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Host } from './host.ts';
import type { Invariant } from './invariants.ts';
import type { Replica } from './replica.ts';
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
      for (const { host, why } of givenUp(changes, world)) {
        note(world);
        const heardMs = world.clock.monotonic() - (unheardAtMs.get(host.name) ?? 0);
        assert(heardMs < staleMs, `${host.name} is down, and its kernel has answered for ${heardMs} ms: ${why}`);
      }
    },
  };
}

/** What was heard before nothing was any more counts for so long at most: a round of probes, the silence of an agent that hung up, and a slow commit. */
const lastWordsMs = 4_000;

/** Who hears nobody cannot tell a cluster that has died from a cable of its own. */
export function deafLeadersJudgeNobody(): Invariant {
  /** The leader that runs and that nothing from any host gets to, since when. */
  let deaf: { readonly run: Replica['run']; readonly sinceMs: number } | undefined;
  const note = (world: World) => {
    const { leader, hosts, clock } = world;
    const run = leader?.run;
    if (!run || hosts.some((host) => reaches(world, host, leader!.name))) deaf = undefined;
    else if (deaf?.run !== run) deaf = { run, sinceMs: clock.monotonic() };
  };
  return {
    name: 'a leader that can hear no host takes none for down',
    look: note,
    step({ changes }, world) {
      for (const { host, why } of givenUp(changes, world)) {
        note(world);
        const deafMs = deaf ? world.clock.monotonic() - deaf.sinceMs : 0;
        assert(deafMs < lastWordsMs, `${host.name} is down, and nobody could be heard for ${deafMs} ms: ${why}`);
      }
    },
  };
}

/** Who has been well for so long under one leader is heard by it: whoever was cut off before has dialled again. */
const surelyHeardMs = 8_000;
/** Between two beats, and two looks where nothing happens. */
const lookMs = 1_300;

/** What has been seen of one host under one leader. */
interface Silence {
  /** Its beats go to and fro since then. */
  wellSinceMs?: number | undefined;
  /** It was surely heard until then, and has not been well for long since. */
  heardUntilMs?: number;
  /** Nothing of it can have got to the leader since then. */
  silentSinceMs?: number | undefined;
}

/** Where most fall silent at once it is the leader's own line, or the switch between, more likely than all of them. */
export function mostAtOnceAreWaitedFor(): Invariant {
  let run: Replica['run'];
  /** By member: who has joined anew was never heard. */
  const silences = new Map<NodeId, Silence>();
  const note = (world: World) => {
    const { leader, hosts, clock } = world;
    if (leader?.run !== run) silences.clear();
    run = leader?.run;
    if (!run) return;
    const now = clock.monotonic();
    for (const host of hosts) {
      const seen = silences.get(host.id) ?? {};
      silences.set(host.id, seen);
      if (mayBeat(world, host, leader!.name)) seen.wellSinceMs ??= now;
      else if (seen.wellSinceMs !== undefined) {
        if (now - seen.wellSinceMs >= surelyHeardMs) seen.heardUntilMs = now;
        seen.wellSinceMs = undefined;
      }
      if (run.process.running && isSilent(world, host, leader!.name)) seen.silentSinceMs ??= now;
      else seen.silentSinceMs = undefined;
    }
  };
  return {
    name: 'where most fall silent at once none is taken for down so soon',
    look: note,
    step({ changes }, world) {
      const lost = [...givenUp(changes, world)];
      if (lost.length === 0) return;
      note(world);
      if (!run) return;
      const now = world.clock.monotonic();
      const isLost = new Set(lost.map(({ host }) => host));
      const judged = world.hosts.filter((host) => isLost.has(host) || mayBeGivenUp(world.truth.node(host.id)));
      for (const { host, why, stateAtMs } of lost) {
        const decidedMs = now - Math.max(0, run.process.now() - stateAtMs);
        const quiet = judged.filter(({ id }) => decidedMs - (silences.get(id)?.silentSinceMs ?? now) > quietMs);
        if (quiet.length < 2 || quiet.length * 2 <= judged.length) continue;
        const silentMs = now - (silences.get(host.id)?.heardUntilMs ?? 0);
        assert(
          silentMs >= massSilenceMs - lookMs,
          `${host.name} is down, silent for ${silentMs} ms, as are ${quiet.map(({ name }) => name)}: ${why}`,
        );
      }
    },
  };
}

/** A verdict may be made on it: it is a member that has described itself, and not down. */
function mayBeGivenUp(node: Node | undefined): boolean {
  return node !== undefined && (node.state === 'ready' || (node.state === 'unknown' && node.bootId !== ''));
}

/** Nothing of it gets to that machine, nor is anything on its way. */
function isSilent(world: World, host: Host, to: string): boolean {
  return !reaches(world, host, to) && !world.network.isPoor(host.name) && !world.network.isPoor(to);
}

/** Whoever beats for it runs, and the line to that machine is clear in both directions. */
function mayBeat({ network, watched }: World, host: Host, to: string): boolean {
  const beats = watched ? host.boot?.machine.running && host.boot.watchdog?.process?.running : host.process?.running;
  return beats === true && !network.isCut(host.name, to) && !network.isCut(to, host.name);
}

/** Something of it may get to that machine. */
function reaches({ network, watched }: World, host: Host, to: string): boolean {
  const speaks = watched ? host.boot?.machine.running : host.process?.running;
  return speaks === true && !network.isCut(host.name, to);
}

/** Who is taken for down by these changes. */
function* givenUp(
  changes: readonly Applied[],
  { hosts }: World,
): Iterable<{ readonly host: Host; readonly why: string; readonly stateAtMs: number }> {
  for (const { table, before, after } of changes) {
    if (table !== 'node' || after?.state !== 'down' || !before || before.state === 'down') continue;
    const host = hosts.find(({ id }) => id === after.id);
    if (host) yield { host, why: after.message, stateAtMs: after.stateAtMs };
  }
}

/** Its machine runs, and packets go to and fro between it and the leader, or most of the hosts that the leader can ask: those that turn to it. */
function isHeard(world: World, host: Host): boolean {
  const { leader, hosts, network } = world;
  if (!leader?.run || !host.boot?.machine.running) return false;
  const isClear = (one: string, other: string) =>
    !network.isCut(one, other) && !network.isCut(other, one) && !network.isPoor(one) && !network.isPoor(other);
  if (isClear(leader.name, host.name)) return true;
  const isThere = ({ boot, dialled }: Host) => boot?.watchdog?.process?.running && dialled === leader.address;
  const peers = hosts.filter((peer) => peer !== host && isThere(peer) && isClear(leader.name, peer.name));
  const hearing = peers.filter((peer) => isClear(peer.name, host.name));
  return hearing.length * 2 > peers.length;
}
