/** What would happen to tasks if nodes were lost, drained or added, or services scaled: the deciders on a copy. Pure. */
import type { Move } from '#control-plane/reconcilers/rebalance.ts';
import { adviseSubnets } from '#control-plane/reconcilers/subnets.ts';
import { Ledger } from '#control-plane/scheduler/ledger.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { type NodeId, nodeId, type ServiceId } from '#proto/model/ids.ts';
import { isPerNode } from '#proto/model/job.ts';
import type { Node } from '#proto/model/node.ts';
import { noResources, type Resources } from '#proto/model/resources.ts';
import { isActive, type Task } from '#proto/model/task.ts';
import { affectedBy } from './affected.ts';
import { type PlannedTask, Scratch } from './plan.ts';
import { planRebalance } from './plan-rebalance.ts';

export interface Supposition {
  readonly killed: readonly Node[];
  readonly drained: readonly Node[];
  /** So many more nodes of that make; undefined: of none. */
  readonly added: { readonly count: number; readonly like: Node } | undefined;
  /** Edits of services. */
  readonly changes: readonly Change[];
}

export interface NodeForecast {
  readonly node: Node;
  readonly tasksBefore: number;
  readonly tasksAfter: number;
  readonly reservedBefore: Resources;
  readonly reservedAfter: Resources;
}

export interface Forecast {
  /** Of services with tasks that would start, stop or wait. */
  readonly tasks: ReadonlyMap<ServiceId, readonly PlannedTask[]>;
  /** By name; those added at the end, and all with the moves done. */
  readonly nodes: readonly NodeForecast[];
  /** What evens out nodes afterwards; none where no node was added. */
  readonly moves: readonly (Move & { readonly task: Task })[];
}

/** `now`: wall clock ms. */
export function whatIf(snapshot: Snapshot, supposed: Supposition, now: number): Forecast {
  const scratch = new Scratch(snapshot, now);
  const added = newNodes(snapshot, supposed.added, now);
  const edited = [
    ...supposed.killed.map(
      (node): Node => ({ ...node, state: 'down', unaccounted: true, fenced: true, message: 'supposed to be lost' }),
    ),
    ...supposed.drained.map((node): Node => ({ ...node, availability: 'drain' })),
    ...added,
  ];
  scratch.apply([...edited.map(nodeChange), ...supposed.changes]);
  for (const [{ id }, { subnet }] of adviseSubnets(scratch.snapshot, now)) {
    const node = scratch.snapshot.node(id);
    if (node && node.subnet !== subnet) scratch.apply([nodeChange({ ...node, subnet })]);
  }
  const tasks = scratch.settle([...affected(snapshot, edited, supposed.changes)]);
  const evenedOut = supposed.added && scratch.snapshot.cluster?.rebalancePerMinute !== 0;
  const moves = evenedOut ? planRebalance(scratch.snapshot, now).moves : [];
  const moved = moves.map((move) => ({ ...move, task: scratch.snapshot.task(move.taskId)! }));
  scratch.apply(moved.map(({ task, to, toName }) => taskChange({ ...task, nodeId: to, nodeName: toName })));
  return {
    tasks: new Map([...tasks].filter(([, planned]) => planned.length > 0)),
    nodes: forecasts(snapshot, scratch.snapshot),
    moves: moved,
  };
}

/** In the order in which the loop looks at them. */
function affected(snapshot: Snapshot, nodes: readonly Node[], changes: readonly Change[]): Set<ServiceId> {
  const ids = new Set<ServiceId>();
  for (const node of nodes) for (const id of affectedBy(snapshot, node.id)) ids.add(id);
  for (const { id, spec } of snapshot.all('service')) if (isPerNode(spec)) ids.add(id);
  for (const change of changes) if (change.table === 'service' && change.value) ids.add(change.value.id);
  // Room may have become free for those that wait.
  for (const task of snapshot.all('task')) if (task.nodeId === '' && isActive(task)) ids.add(task.serviceId);
  return ids;
}

function newNodes(snapshot: Snapshot, added: Supposition['added'], now: number): Node[] {
  if (!added) return [];
  const names = new Set([...snapshot.all('node')].map(({ name }) => name));
  return Array.from({ length: added.count }, (_, index): Node => {
    let name = `new${index + 1}`;
    while (names.has(name)) name = `${name}x`;
    return {
      ...added.like,
      id: nodeId(`whatif${index.toString(36).padStart(19, '0')}`),
      name,
      address: '',
      address6: '',
      subnet: '',
      pinnedSubnet: '',
      foreignNetworks: [],
      availability: 'active',
      state: 'ready',
      unaccounted: false,
      message: '',
      joinedAtMs: now,
      stateAtMs: now,
    };
  });
}

function forecasts(before: Snapshot, after: Snapshot): NodeForecast[] {
  const [then, next] = [Ledger.of(before), Ledger.of(after)];
  const known = new Set([...before.all('node')].map(({ id }) => id));
  return [...after.all('node')]
    .sort((a, b) => Number(known.has(b.id)) - Number(known.has(a.id)) || (a.name < b.name ? -1 : 1))
    .map((node) => ({
      node,
      tasksBefore: onNode(then, node.id).tasks,
      tasksAfter: onNode(next, node.id).tasks,
      reservedBefore: onNode(then, node.id).reserved,
      reservedAfter: onNode(next, node.id).reserved,
    }));
}

/** What a node that is down holds is no use to anybody. */
function onNode(ledger: Ledger, id: NodeId): { readonly tasks: number; readonly reserved: Resources } {
  const usage = ledger.usageOf(id);
  if (!usage || usage.node.state === 'down') return { tasks: 0, reserved: noResources };
  const { tasks, cpuMillis, memoryBytes, pids } = usage;
  return { tasks, reserved: { ...noResources, cpuMillis, memoryBytes, pids } };
}

function taskChange(value: Task): Change {
  return { table: 'task', key: value.id, value, expect: 0 };
}

function nodeChange(value: Node): Change {
  return { table: 'node', key: value.id, value, expect: 0 };
}
