/** What must hold whatever goes wrong: small objects, each with a name, asked at every step of the store, every look at the hosts, and when all is quiet. */
import { leavesService, withdrawalLimitMs } from '#control-plane/dispatch/withdrawal.ts';
import { besideForerunner } from '#control-plane/scheduler/beside.ts';
import type { Change, Delta } from '#control-plane/store/records.ts';
import { assert } from '#proto/kernel/errors.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';

import { isAbsent, isServing, isTerminal, mayAdvance, mayWant, occupiesNode } from '#proto/model/task.ts';
import { pinnedVolumes } from '#proto/model/volume.ts';
import { addressInvariants } from './address-invariants.ts';
import { contentsAreKept } from './documents.ts';
import { eventsAreKeptOnce } from './events.ts';
import { imagesComeFirst, preparedRunAlone } from './hand-over.ts';
import type { Host } from './host.ts';
import { jobInvariants } from './job-invariants.ts';
import type { VolumeOnDisk } from './mounts.ts';
import { nameOf, nodesOf } from './named.ts';
import { deafLeadersJudgeNobody, mostAtOnceAreWaitedFor } from './no-false-verdict.ts';
import { movesKeepTheirBudget, nobodyLeavesForLess } from './placement-invariants.ts';
import { overtakenAreStopped, rolloutsEndWithAReason, rolloutsKeepTheirPace, seatsAreNotCrowded } from './rollouts.ts';
import { orderIsKept } from './start-order.ts';
import type { World } from './world.ts';

/** A commit that the store took. */
export interface Committed {
  readonly replica: string;
  readonly epoch: number | undefined;
  readonly changes: readonly Change[];
  readonly revision: number;
}

/** Each throws where it finds itself broken. */
export interface Invariant {
  readonly name: string;
  /** After each step of the store. */
  step?(delta: Delta, world: World): void;
  committed?(commit: Committed, world: World): void;
  /** A process has been started on a host. */
  started?(host: Host, task: TaskId, world: World): void;
  /** A task has a volume from now on; `found`: with what was in it. */
  mounted?(host: Host, task: TaskId, volume: VolumeOnDisk, found: boolean, world: World): void;
  /** A signal is sent to a process of a host. */
  signalled?(host: Host, task: TaskId, world: World): void;
  /** Every 50 ms. */
  look?(world: World): void;
  /** Nothing has gone wrong for a while, but not all need be settled. */
  calm?(world: World): void;
}

/** Fresh ones for one world: some remember. */
export function invariants(): readonly Invariant[] {
  return [
    statesGoForward,
    nodesHoldWhatTheyHave,
    volumesDrawTheirTasks,
    ...addressInvariants(),
    restartsWait(),
    vipsAreUnique,
    noTaskIsLost(),
    absencesAreOfTheAway(),
    epochsGoForward(),
    onlyTheLeaderWrites,
    leadersGiveWay(),
    agentsObeyNoOlderEpoch(),
    viewsGoForward(),
    oneTaskOneHost,
    singletonsAreNeverTwice,
    endedTasksStayEnded,
    onlyWhatIsAssignedRuns(),
    viewsAreCurrent(),
    stopsComeLast(),
    rolloutsKeepTheirPace(),
    seatsAreNotCrowded,
    rolloutsEndWithAReason,
    overtakenAreStopped,
    imagesComeFirst,
    preparedRunAlone,
    movesKeepTheirBudget(),
    orderIsKept(),
    contentsAreKept,
    nobodyLeavesForLess,
    ...jobInvariants(),
    eventsAreKeptOnce,
    deafLeadersJudgeNobody(),
    mostAtOnceAreWaitedFor(),
  ];
}

const statesGoForward: Invariant = {
  name: 'states only go forward, and tasks do not move',
  step({ changes }, { truth }) {
    for (const change of changes) {
      if (change.table !== 'task' || !change.before || !change.after) continue;
      const { before, after } = change;
      const name = nameOf(before);
      const advanced = before.state === after.state || mayAdvance(before.state, after.state);
      assert(advanced, `${name} went from ${before.state} to ${after.state}`);
      const wanted = before.wanted === after.wanted || mayWant(before.wanted, after.wanted);
      assert(wanted, `${name} was wanted ${before.wanted}, then ${after.wanted}`);
      assert(before.nodeId === '' || before.nodeId === after.nodeId, `${name} moved`);
      assert(before.address === '' || before.address === after.address, `${name} changed its address`);
      if (before.revision === after.revision) continue;
      const [from, to] = [before, after].map((task) => truth.revisionOf(task.serviceId, task.revision));
      assert(!from || from.origin === to?.origin, `${name} went over to a revision that needs another process`);
    }
  },
};

const nodesHoldWhatTheyHave: Invariant = {
  name: 'reservations fit their node',
  step(delta, { truth }) {
    for (const id of nodesOf(delta)) {
      const node = truth.node(id);
      if (!node) continue;
      let cpuMillis = 0;
      let memoryBytes = 0;
      for (const task of truth.tasksOnNode(id)) {
        if (!occupiesNode(task)) continue;
        const { reservations } = besideForerunner(task, (id) => truth.task(id));
        cpuMillis += reservations.cpuMillis;
        memoryBytes += reservations.memoryBytes;
      }
      assert(cpuMillis <= node.capacity.cpuMillis, `${node.name} has given away ${cpuMillis} millicores`);
      assert(memoryBytes <= node.capacity.memoryBytes, `${node.name} has given away ${memoryBytes} bytes`);
    }
  },
};

const volumesDrawTheirTasks: Invariant = {
  name: 'a task is placed only where the volumes are that it mounts',
  step({ changes }, { truth }) {
    for (const change of changes) {
      if (change.table !== 'task' || !change.after?.nodeId || change.before?.nodeId) continue;
      const task = change.after;
      const mode = truth.service(task.serviceId)?.spec.mode;
      const template = truth.revisionOf(task.serviceId, task.revision)?.template;
      for (const name of mode && template ? pinnedVolumes(mode, template) : []) {
        const home = truth.get('volume', name)?.value;
        const where = home?.nodeName ?? 'no node';
        assert(home?.nodeId === task.nodeId, `${nameOf(task)} went to ${task.nodeName}, volume ${name} is on ${where}`);
      }
    }
  },
};

/** A wait of up to a second begins before the task is prepared: what cannot be prepared is begun a few times at once, and again once it was lost. */
const mostRestarts = 20;
const restartsWithinMs = 2_000;

function restartsWait(): Invariant {
  const begun = new Map<string, number[]>();
  return {
    name: 'what ends again and again is not begun again without a wait',
    step({ changes }, { clock }) {
      const now = clock.monotonic();
      for (const { table, before, after } of changes) {
        if (table !== 'task' || before || !after?.why.startsWith('restarts ')) continue;
        const seat = `${after.serviceId}/${after.iteration}/${after.slot || after.nodeName}`;
        const recent = [...(begun.get(seat) ?? []), now].filter((atMs) => atMs > now - restartsWithinMs);
        begun.set(seat, recent);
        assert(
          recent.length <= mostRestarts,
          `${nameOf(after)} is the ${recent.length}th within ${restartsWithinMs} ms`,
        );
      }
    },
  };
}

const vipsAreUnique: Invariant = {
  name: 'no VIP means two services',
  step({ changes }, { truth }) {
    if (!changes.some(({ table }) => table === 'service')) return;
    const vips = new Set<string>();
    for (const { vip, id } of truth.all('service')) {
      assert(vip === '' || !vips.has(vip), `${vip} is the address of ${id} and another service`);
      vips.add(vip);
    }
  },
};

/** A decision about a node that was away may land a moment after it came back. */
const awayMs = 5_000;

function noTaskIsLost(): Invariant {
  const awayAt = new Map<string, number>();
  return {
    name: 'a record is deleted only of a task that has ended, or whose node was away',
    step({ changes }, { truth, clock }) {
      const now = clock.monotonic();
      for (const change of changes) {
        if (change.table === 'node' && (change.before?.state !== 'ready' || change.after?.fenced))
          awayAt.set(change.key, now);
        if (change.table !== 'task' || !change.before || change.after) continue;
        const { before } = change;
        if (isTerminal(before.state) || before.nodeId === '' || truth.node(before.nodeId)?.state !== 'ready') continue;
        const sinceMs = now - (awayAt.get(before.nodeId) ?? Number.NEGATIVE_INFINITY);
        assert(sinceMs < awayMs, `${nameOf(before)} was deleted while ${before.state} on ${before.nodeName}`);
      }
    },
  };
}

function absencesAreOfTheAway(): Invariant {
  const downAt = new Map<string, number>();
  return {
    name: 'a task goes absent with its node, and comes back with it when its agent has said what runs',
    step({ changes }, { truth, clock }) {
      const now = clock.monotonic();
      for (const change of changes) {
        if (change.table === 'node' && [change.before, change.after].some((node) => node?.state === 'down'))
          downAt.set(change.key, now);
        if (change.table !== 'task' || !change.after || change.after.nodeId === '') continue;
        const { before, after } = change;
        const node = truth.node(after.nodeId as NodeId);
        const isFresh = now - (downAt.get(after.nodeId) ?? Number.NEGATIVE_INFINITY) < awayMs;
        if (isAbsent(after) && !(before && isAbsent(before)) && node?.state !== 'down')
          assert(isFresh, `${nameOf(after)} is absent, and ${after.nodeName} is ${node?.state}`);
        if (!before?.absence || isAbsent(after) || isTerminal(after.state)) continue;
        assert(node?.bootId === before.absence.bootId, `${nameOf(after)} came back with another boot of its node`);
        if (node.state === 'ready' && !node.unaccounted) continue;
        assert(isFresh, `${nameOf(after)} is back, and its node is not`);
      }
    },
  };
}

function epochsGoForward(): Invariant {
  let epoch = 0;
  return {
    name: 'each leadership has an epoch of its own, one more than the last',
    step(_, world) {
      const next = world.epoch;
      assert(next === epoch || next > epoch, `epoch ${next} came after ${epoch}`);
      epoch = next;
    },
  };
}

const onlyTheLeaderWrites: Invariant = {
  name: 'no commit of a deposed leader lands',
  committed({ replica, epoch, revision, changes }, world) {
    // The record of the whole cluster is made before there is a leader.
    if (changes.every(({ table }) => table === 'cluster')) return;
    const leader = world.leaderAt(revision);
    const what = changes.map(({ table, key }) => `${table}/${key}`).join(' ');
    assert(
      leader?.replica === replica && leader.epoch === epoch,
      `${replica} wrote ${what} with epoch ${epoch} while ${leader?.replica} led with ${leader?.epoch}`,
    );
  },
};

/** Who has heard of a successor ends what it does in the same turn. */
const giveWayMs = 100;

function leadersGiveWay(): Invariant {
  const since = new Map<string, number>();
  return {
    name: 'nobody leads who has heard of a newer epoch',
    look({ replicas, clock }) {
      for (const { name, epoch, run } of replicas) {
        const newest = run?.view.leadership?.epoch ?? 0;
        if (!run?.process.running || epoch === undefined || newest <= epoch) {
          since.delete(name);
          continue;
        }
        const sinceMs = since.get(name) ?? clock.monotonic();
        since.set(name, sinceMs);
        const forMs = clock.monotonic() - sinceMs;
        assert(forMs < giveWayMs, `${name} leads with epoch ${epoch}, and has known of ${newest} for ${forMs} ms`);
      }
    },
  };
}

function agentsObeyNoOlderEpoch(): Invariant {
  const newest = new Map<NodeId, number>();
  return {
    name: 'no agent goes back to an older epoch',
    look({ hosts, replicas }) {
      for (const { id, name, journal, process, torn, connected, dialled } of hosts) {
        if (!process || !journal || torn) continue;
        const heard = replicas.find(({ address }) => address === dialled)?.epoch ?? journal.epoch;
        assert(!connected || heard >= journal.epoch, `${name} knows epoch ${journal.epoch}, and obeys ${heard}`);
        const before = newest.get(id) ?? 0;
        assert(journal.epoch >= before, `${name} obeyed epoch ${before}, then ${journal.epoch}`);
        newest.set(id, journal.epoch);
      }
    },
  };
}

function viewsGoForward(): Invariant {
  const newest = new Map<string, number>();
  return {
    name: 'what an agent has put into its kernel is never followed by what was before it',
    look({ hosts }) {
      for (const { name, starts, boot, process, torn, networkPut } of hosts) {
        if (!boot || !process || torn || !networkPut) continue;
        const { revision } = networkPut;
        const key = `${boot.id}.${starts}`;
        const before = newest.get(key) ?? 0;
        assert(revision >= before, `${name} had revision ${before}, and then ${revision}`);
        newest.set(key, revision);
      }
    },
  };
}

const oneTaskOneHost: Invariant = {
  name: 'a task runs on no other host than its own',
  started(host, id, { etcd }) {
    const task = etcd.get('task', id)?.value;
    assert(!task || task.nodeId === host.id, `${task && nameOf(task)} was started on ${host.name}`);
  },
};

const singletonsAreNeverTwice: Invariant = {
  name: 'of a singleton no two tasks run at once',
  started(host, id, world) {
    const { etcd, hosts } = world;
    const task = etcd.get('task', id)?.value;
    if (!task?.singleton) return;
    for (const other of hosts) {
      // What is on a machine that stands still runs nowhere; when that goes on, its guard's time is up.
      if (!other.boot?.machine.running) continue;
      for (const live of other.live()) {
        const known = etcd.get('task', live.id)?.value;
        const twice = live.id !== id && known?.serviceId === task.serviceId;
        assert(!twice, `${nameOf(task)} was started on ${host.name} while ${live.id} runs on ${other.name}`);
      }
    }
  },
};

const endedTasksStayEnded: Invariant = {
  name: 'what was said to have ended is not started again',
  started(host, id, { etcd }) {
    const task = etcd.get('task', id)?.value;
    const ended = task && isTerminal(task.state) && task.state !== 'orphaned';
    assert(!ended, `${host.name} started ${task && nameOf(task)}, which is ${task?.state}`);
  },
};

/** A stop's wait for other nodes, its drain and its grace period, and some more. An agent that is started again begins it again. */
const unwantedMs = 24_000;

function onlyWhatIsAssignedRuns(): Invariant {
  const since = new Map<string, number>();
  return {
    name: 'a connected node runs nothing that is not assigned to it',
    look({ hosts, truth, clock, tied }) {
      const now = clock.monotonic();
      const seen = new Set<string>();
      for (const host of hosts) {
        if (!tied(host)) continue;
        for (const { id } of host.live()) {
          const task = truth.task(id);
          if (task && occupiesNode(task) && task.nodeId === host.id && task.wanted === 'running') continue;
          const key = `${host.name}.${host.starts}/${id}`;
          seen.add(key);
          if (!since.has(key)) since.set(key, now);
          const forMs = now - since.get(key)!;
          assert(
            forMs <= unwantedMs,
            `${host.name} has run ${id} (${task?.state ?? 'no record'}) ${forMs} ms too long`,
          );
        }
      }
      for (const key of since.keys()) if (!seen.has(key)) since.delete(key);
    },
  };
}

/** News reach every kernel within so long where nothing is broken. */
const newsMs = 2_000;

function viewsAreCurrent(): Invariant {
  const stoppedServing = new Map<TaskId, number>();
  return {
    name: 'no connected node balances to a task that no longer serves',
    step({ changes }, { clock }) {
      for (const change of changes) {
        if (change.table !== 'task') continue;
        if (change.after && isServing(change.after)) stoppedServing.delete(change.after.id);
        else if (change.before && isServing(change.before)) stoppedServing.set(change.before.id, clock.monotonic());
      }
    },
    calm({ hosts, truth, clock, tied }) {
      for (const host of hosts) {
        if (!tied(host)) continue;
        for (const { name, backends } of host.boot?.network.wanted?.endpoints ?? []) {
          for (const { serving, taskId } of backends) {
            const task = truth.task(taskId);
            if (!serving || (task && isServing(task))) continue;
            const atMs = stoppedServing.get(taskId);
            assert(atMs !== undefined, `${host.name} balances ${name} to ${taskId}, which never served`);
            const forMs = clock.monotonic() - atMs;
            assert(forMs <= newsMs, `${host.name} balances ${name} to ${taskId}, which has not served for ${forMs} ms`);
          }
        }
      }
    },
  };
}

function stopsComeLast(): Invariant {
  const leftAt = new Map<TaskId, number>();
  /** When a node of that name was last lost, removed or back. */
  const turnedAt = new Map<string, number>();
  return {
    name: 'nothing is told to stop while a node that answers sends to it',
    step({ changes }, { clock }) {
      for (const { table, key, before, after } of changes) {
        if (table === 'task' && leavesService(before, after)) leftAt.set(key as TaskId, clock.monotonic());
        if (table === 'node' && before?.state !== after?.state)
          turnedAt.set((after ?? before)!.name, clock.monotonic());
      }
    },
    signalled(host, id, { truth, hosts, tied, clock }) {
      const task = truth.task(id);
      const atMs = leftAt.get(id);
      if (!task || atMs === undefined || isTerminal(task.state) || task.nodeId !== host.id) return;
      // By its own verdict, or because it is no member any more, a node stops what it has at once.
      if (host.journal?.status(id)?.health === 'unhealthy' || !truth.node(host.id)) return;
      const forMs = clock.monotonic() - atMs;
      if (forMs >= withdrawalLimitMs) return;
      for (const other of hosts) {
        // Of one whose kernel refuses, nobody waits a second time.
        if (!tied(other) || other.boot?.network.behind) continue;
        // One that has booted since begins with what its journal says; what its kernel held before is gone.
        if (other.boot && other.boot.atMs > atMs) continue;
        const state = truth.node(other.id)?.state;
        if (state === undefined || state === 'down') continue;
        // Nobody waits for one that is down or removed; back again, it sends by its old table until it has the new one.
        if ((turnedAt.get(other.name) ?? 0) > atMs) continue;
        const backends = other.boot?.network.wanted?.endpoints.flatMap((endpoint) => endpoint.backends) ?? [];
        const sends = backends.some(({ taskId, serving }) => taskId === id && serving);
        assert(!sends, `${nameOf(task)} was signalled after ${forMs} ms, and ${other.name} still sends to it`);
      }
    },
  };
}
