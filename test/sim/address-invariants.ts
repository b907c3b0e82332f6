/** What must hold of addresses: nobody has one that another still has, or that is still sent to under another's name. */
import { containsAddress } from '#net/plan/cidr.ts';
import { assert } from '#proto/kernel/errors.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import { occupiesNode, type Task } from '#proto/model/task.ts';
import type { Invariant } from './invariants.ts';
import { nameOf, nodesOf } from './named.ts';

export function addressInvariants(): readonly Invariant[] {
  return [addressesAreUnique, addressesRest(), nobodyIsMistaken(), processesHaveTheirAddress];
}

const addressesAreUnique: Invariant = {
  name: 'no address means two tasks, and each is of its node',
  step(delta, { truth }) {
    for (const id of nodesOf(delta)) {
      const node = truth.node(id);
      if (!node) continue;
      const holders = new Map<string, Task>();
      for (const task of truth.tasksOnNode(id)) {
        // What waits for a fixed address has none before it is to run.
        if (!occupiesNode(task) || (task.address === '' && task.wanted !== 'running')) continue;
        const other = holders.get(task.address);
        assert(!other, `${task.address} is held by ${other?.id} and ${task.id}`);
        const inside = containsAddress(node.subnet, task.address);
        assert(inside, `${task.address} of ${nameOf(task)} is outside ${node.subnet}`);
        holders.set(task.address, task);
      }
    }
  },
};

/** As far as whoever leads can know: what the store said of its former owner when that leader began, and all that happened since. */
function addressesRest(): Invariant {
  const freed = new Map<string, { readonly atMs: number; readonly by: TaskId }>();
  let knownEpoch = 0;
  return {
    name: 'a freed address means nobody for a minute',
    step({ changes }, { clock, epoch, truth }) {
      const now = clock.now();
      if (epoch !== knownEpoch) {
        knownEpoch = epoch;
        for (const [address, { by }] of freed) if (!truth.task(by)) freed.delete(address);
      }
      for (const change of changes) {
        if (change.table === 'node' && !change.after && change.before?.subnet) {
          for (const [address, { by }] of freed) {
            if (containsAddress(change.before.subnet, address) && !truth.task(by)) freed.delete(address);
          }
        }
        if (change.table !== 'task') continue;
        const before = change.before && occupiesNode(change.before) ? change.before : undefined;
        const after = change.after && occupiesNode(change.after) ? change.after : undefined;
        if (before?.address && !after) freed.set(before.address, { atMs: now, by: before.id });
        if (change.before && !change.after && !truth.node(change.before.nodeId as NodeId)) {
          freed.delete(change.before.address);
        }
        if (before?.address || !after) continue;
        const free = freed.get(after.address);
        if (!free) continue;
        assert(now - free.atMs >= restMs, `${after.address} rested only ${now - free.atMs} ms`);
      }
    },
  };
}

/** A minute, less what the leader's clock may have jumped. */
const restMs = 56_000;

/** News reach every kernel within so long where nothing is broken. */
const newsMs = 5_000;

function nobodyIsMistaken(): Invariant {
  /** Since when each host has heard the news; those that do not are not in here. */
  const tiedSinceMs = new Map<string, number>();
  return {
    name: 'nobody begins with an address that others still send to under another name',
    look({ hosts, tied, clock }) {
      for (const host of hosts) {
        if (!tied(host) || host.boot?.network.behind) tiedSinceMs.delete(host.name);
        else if (!tiedSinceMs.has(host.name)) tiedSinceMs.set(host.name, clock.monotonic());
      }
    },
    started(host, id, { hosts, tied, clock }) {
      const own = host.live().find((live) => live.id === id)?.address;
      if (!own) return;
      for (const other of hosts) {
        const sinceMs = tied(other) ? tiedSinceMs.get(other.name) : undefined;
        if (sinceMs === undefined || clock.monotonic() - sinceMs < newsMs) continue;
        for (const { name, backends } of other.boot?.network.wanted?.endpoints ?? []) {
          for (const { address, taskId, serving } of backends) {
            if (!serving || address !== own) continue;
            assert(taskId === id, `${id} has ${own}, where ${other.name} sends for ${name} as if it were ${taskId}`);
          }
        }
      }
    },
  };
}

const processesHaveTheirAddress: Invariant = {
  name: 'every process has an address, and no two of a host the same',
  look({ hosts }) {
    for (const host of hosts) {
      const holders = new Map<string, TaskId>();
      for (const { id, address } of host.live()) {
        assert(address !== '', `${id} runs on ${host.name} without a network`);
        assert(!holders.has(address), `${address} is that of ${id} and ${holders.get(address)} on ${host.name}`);
        holders.set(address, id);
      }
    }
  },
};
