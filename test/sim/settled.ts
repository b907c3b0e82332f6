/** Whether a story has come to rest: all that is wanted is there, and nothing else. */

import { sharedItem, sharedKeys } from '#control-plane/dispatch/shared-set.ts';
import { isRolling } from '#control-plane/reconcilers/rollout.ts';
import { tables } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { replicasOf } from '#proto/model/autoscale.ts';
import { isJob } from '#proto/model/job.ts';
import { isAbsent, isActive, occupiesNode } from '#proto/model/task.ts';
import { eventsUntold } from './events.ts';
import { isUnderWay } from './job-invariants.ts';
import { nameOf } from './named.ts';
import { waitsInVain } from './start-order.ts';
import type { World } from './world.ts';

/** Why the cluster is not yet as it is wanted; empty when it is. */
export async function unsettled(world: World): Promise<string> {
  return (
    ledBadly(world) ||
    viewsApart(world) ||
    nodesAway(world) ||
    servicesUnlikeWanted(world.truth) ||
    (await hostsUnlikeStore(world)) ||
    (await eventsUntold(world))
  );
}

function ledBadly({ replicas }: World): string {
  const leaders = replicas.filter(({ epoch }) => epoch !== undefined).map(({ name }) => name);
  return leaders.length === 1 ? '' : `${leaders.join(' and ') || 'nobody'} leads`;
}

/** Every replica sees what etcd holds. */
function viewsApart({ replicas, etcd }: World): string {
  for (const { name, run } of replicas) {
    for (const { table, key, modRevision } of etcd.records) {
      const seen = run?.view.snapshot.get(table, key)?.modRevision;
      if (seen !== modRevision) return `${name} has ${table}/${key} of revision ${seen}, not ${modRevision}`;
    }
    for (const table of tables)
      for (const key of run?.view.snapshot.keys(table) ?? [])
        if (!etcd.get(table, key)) return `${name} still has ${table}/${key}`;
  }
  return '';
}

function nodesAway({ truth }: World): string {
  const away = [...truth.all('node')].find((node) => node.state !== 'ready');
  return away ? `${away.name} is ${away.state}: ${away.message}` : '';
}

function servicesUnlikeWanted(truth: Snapshot): string {
  const nodes = truth.count('node');
  for (const service of truth.all('service')) {
    const { spec, revision, rollout, removing } = service;
    if (removing) return `${spec.name} is still being removed`;
    if (isJob(spec)) {
      if (isUnderWay(service)) return `${spec.name} is under way`;
      continue;
    }
    if (waitsInVain(truth, service)) continue;
    const tasks = [...truth.tasksOfService(service.id)];
    const absent = tasks.find(isAbsent);
    if (absent) return `${nameOf(absent)} is absent: ${absent.why}`;
    const active = tasks.filter(isActive);
    // Start-first needs room for two, a global service on its one node: without it they wait, as they say.
    const full = active.some((task) => task.state === 'pending' && task.message.includes('without room'));
    if (full && (spec.mode === 'global' || spec.update.order === 'start-first')) continue;
    // At a gate that time does not open it rests.
    const rests = rollout.state === 'held' && rollout.holdUntilMs === 0;
    if (isRolling(service) && !rests) return `${spec.name} is ${rollout.state}`;
    const wanted = spec.mode === 'global' ? nodes : replicasOf(service);
    if (active.length !== wanted) return `${spec.name} has ${active.length} of ${wanted} tasks`;
    const slots = new Set(active.map((task) => (spec.mode === 'global' ? task.nodeId : task.slot)));
    if (slots.size !== wanted) return `${spec.name} has two tasks in one seat`;
    const late = active.find((task) => task.state !== 'running');
    if (late) return `${nameOf(late)} is ${late.state}: ${late.message}`;
    const stale = active.find((task) => task.revision !== revision && rollout.state !== 'paused' && !rests);
    if (stale) return `${nameOf(stale)} is of revision ${stale.revision}, not ${revision}`;
  }
  return '';
}

/** Processes, namespaces and layers are those of the tasks, and every kernel balances as the store says: nothing more, nothing less. */
async function hostsUnlikeStore({ hosts, truth }: World): Promise<string> {
  const items = [...sharedKeys(truth)].flatMap((key) => sharedItem(truth, key) ?? []);
  const lines = items.map((item) => ({ item, line: lineOf(item) }));
  for (const host of hosts) {
    if (!host.boot || !host.connected) return `${host.name} has no session`;
    const tasks = [...truth.tasksOnNode(host.id)].filter(occupiesNode).map(({ id }) => id);
    const expected = tasks.sort().join(' ');
    const live = host.live().map(({ id }) => id);
    if (live.sort().join(' ') !== expected) return `${host.name} runs [${live}], not [${expected}]`;
    for (const { id, settings } of host.live()) {
      const { limits, controls } = truth.revisionOf(truth.task(id)!.serviceId, truth.task(id)!.revision)!.template;
      if (lineOf(settings) !== lineOf({ limits, controls })) return `${host.name} holds ${id} to other limits`;
    }
    for (const [kind, found] of Object.entries(await host.remains())) {
      if ([...found].sort().join(' ') !== expected) return `${host.name} has ${kind} [${found}], not [${expected}]`;
    }
    const view = host.boot.network.wanted;
    for (const kind of ['endpoint', 'peer', 'network'] as const) {
      const should = lines.filter(
        ({ item }) => item.kind === kind && !(item.kind === 'peer' && item.nodeId === host.id),
      );
      const held = { endpoint: view?.endpoints, peer: view?.peers, network: view?.networks }[kind] ?? [];
      const [is, shall] = [sorted(held.map(heldLineOf)), sorted(should.map(({ line }) => line))];
      if (is !== shall) return `${host.name} has the ${kind}s\n${is}\nnot\n${shall}`;
    }
  }
  return '';
}

/** Of items that agents hold: they stay the same objects until they change, and nobody writes to them. */
const heldLines = new WeakMap<object, string>();

function heldLineOf(item: object): string {
  const line = heldLines.get(item) ?? lineOf(item);
  heldLines.set(item, line);
  return line;
}

function lineOf(item: object): string {
  return JSON.stringify({ ...item, kind: '' }, sortedKeys);
}

function sorted(lines: readonly string[]): string {
  return [...lines].sort().join('\n');
}

function sortedKeys(_: string, value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
  // What the wire adds of its own is no part of the item.
  const fields = Object.entries(value).filter(([key]) => !key.startsWith('_'));
  return Object.fromEntries(fields.sort(([a], [b]) => (a < b ? -1 : 1)));
}
