/** Which task of a service is better off on another node, and why: the moves of a rebalancing, one at a time. */
import { isUnmet } from '#control-plane/scheduler/affinity.ts';
import { attributeOf } from '#control-plane/scheduler/constraint.ts';
import { type Request, requestOf } from '#control-plane/scheduler/filters.ts';
import type { Usage } from '#control-plane/scheduler/ledger.ts';
import type { Scheduler } from '#control-plane/scheduler/place.ts';
import { type Candidate, comparisonOf, shareWith, strategyOf } from '#control-plane/scheduler/rank.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { isFault } from '#proto/kernel/errors.ts';
import { replicasOf } from '#proto/model/autoscale.ts';
import { type NodeId, qualifiedName, type ServiceId, type TaskId } from '#proto/model/ids.ts';
import { sharedNetworkOf } from '#proto/model/network.ts';
import { isPassedOver, type Node } from '#proto/model/node.ts';
import type { Service, ServiceSpec } from '#proto/model/service.ts';
import { isActive, isTerminal, type Task } from '#proto/model/task.ts';
import { pinnedVolumes } from '#proto/model/volume.ts';
import { hasFailed, isUp } from './seats.ts';

export interface Move {
  readonly serviceId: ServiceId;
  readonly taskId: TaskId;
  readonly slot: number;
  readonly from: NodeId;
  readonly fromName: string;
  readonly to: NodeId;
  readonly toName: string;
  readonly reason: string;
}

export interface RebalanceView {
  readonly snapshot: Pick<Snapshot, 'revisionOf'>;
  readonly scheduler: Scheduler;
  /** Wall clock, ms. */
  readonly now: number;
  tasksOf(service: ServiceId): Iterable<Task>;
  /** Other services' tasks have the networks of its tasks. */
  isShared(name: string): boolean;
  /** How often the task's seat has been moved in this pass. */
  movesOf(task: Task): number;
}

/** `busy`: it is not at rest, and is to be looked at again when it is. */
export type Advice = { readonly kind: 'move'; readonly move: Move } | { readonly kind: 'stay' | 'busy' };

/** In one pass: services that want what cannot be had together would follow each other for ever. */
export const mostMovesOfSeat = 3;
/** Nothing is moved so soon after one of its tasks failed, or after a node came, or went. */
const afterFailureMs = 60_000;
const afterReadyMs = 5_000;
const afterLossMs = 60_000;
/** Reservations are evened out only where the fuller node gains so much of itself. */
const leastShare = 0.1;

const stay: Advice = { kind: 'stay' };
const busy: Advice = { kind: 'busy' };

/** The best move of the service now. */
export function adviseMove(view: RebalanceView, service: Service): Advice {
  if (whyFixed(view, service) !== '') return stay;
  const request = requestFor(service);
  const seated = settledTasks(view, service);
  if (!request || !seated) return request ? busy : stay;
  return bestMove(view, request, seated);
}

/** When nodes have been as they are for long enough, wall clock ms. */
export function quietFromMs(nodes: Iterable<Node>): number {
  let fromMs = 0;
  for (const { state, stateAtMs, bootId } of nodes) {
    // One that has enrolled and never described itself is not there yet.
    if (bootId !== '') fromMs = Math.max(fromMs, stateAtMs + (state === 'ready' ? afterReadyMs : afterLossMs));
  }
  return fromMs;
}

/** Why tasks of the service are never moved to even out nodes; empty: they may be. */
export function whyFixed({ isShared }: Pick<RebalanceView, 'isShared'>, service: Service): string {
  const { spec, removing } = service;
  const { template } = spec;
  if (removing) return 'it is being removed';
  if (spec.rebalance === 'off') return 'it says x-rebalance: off';
  if (spec.mode !== 'replicated') return `it is ${spec.mode}`;
  if (replicasOf(service) < 2) return 'its only task would run twice for a moment';
  if (pinnedVolumes(spec.mode, template).length > 0) return 'its volumes are where they are';
  if (spec.ports.some(({ mode, published }) => mode === 'host' && published > 0))
    return 'its host ports are known by their nodes';
  if (sharedNetworkOf(template.networkMode) !== undefined || isShared(nameOf(spec)))
    return 'its tasks share a network with those of another service';
  return '';
}

function requestFor({ id, spec }: Service): Request | undefined {
  try {
    return requestOf(id, spec, spec.template);
  } catch (error) {
    if (isFault(error)) return undefined;
    throw error;
  }
}

/** Its tasks by node, where each seat has one that is up and of the current revision, and nothing has failed of late. */
function settledTasks({ tasksOf, now }: RebalanceView, service: Service): ReadonlyMap<NodeId, Task[]> | undefined {
  const { rollout, revision } = service;
  if (rollout.state !== 'idle' && rollout.state !== 'completed' && rollout.state !== 'rolled-back') return undefined;
  const byNode = new Map<NodeId, Task[]>();
  let count = 0;
  for (const task of tasksOf(service.id)) {
    if (hasFailed(task) && task.stateAtMs > now - afterFailureMs) return undefined;
    if (isTerminal(task.state) || !isActive(task)) continue;
    if (!isUp(task) || task.nodeId === '' || task.revision !== revision) return undefined;
    count++;
    byNode.set(task.nodeId, [...(byNode.get(task.nodeId) ?? []), task]);
  }
  return count === replicasOf(service) ? byNode : undefined;
}

/** How much a move is worth: the first level on which it gains, and how much there. */
interface Gain {
  readonly level: number;
  readonly amount: number;
  readonly reason: string;
}

function bestMove(view: RebalanceView, request: Request, seated: ReadonlyMap<NodeId, readonly Task[]>): Advice {
  const { ledger } = view.scheduler;
  const targets = bestOfDomains(view, request);
  const compare = comparisonOf(request, ledger);
  let unclear = false;
  let best:
    | { readonly gain: Gain; readonly task: Task; readonly source: Usage; readonly target: Candidate }
    | undefined;
  for (const [id, tasks] of seated) {
    const source = ledger.usageOf(id);
    const [task] = tasks
      .filter((task) => view.movesOf(task) < mostMovesOfSeat)
      .sort((a, b) => view.movesOf(a) - view.movesOf(b) || b.slot - a.slot);
    if (source?.node.state !== 'ready' || !task) continue;
    for (const target of targets) {
      const gain = target.usage === source ? undefined : gainOf(view, request, source, tasks.length, target);
      if (gain === 'unclear') unclear = true;
      if (!gain || gain === 'unclear') continue;
      const order = best
        ? best.gain.level - gain.level ||
          gain.amount - best.gain.amount ||
          compare(best.target, target) ||
          best.source.order - source.order
        : 1;
      if (order > 0) best = { gain, task, source, target };
    }
  }
  if (!best) return unclear ? busy : stay;
  const { task, source, target, gain } = best;
  const move: Move = {
    serviceId: request.serviceId,
    taskId: task.id,
    slot: task.slot,
    from: source.node.id,
    fromName: source.node.name,
    to: target.usage.node.id,
    toName: target.usage.node.name,
    reason: gain.reason,
  };
  return { kind: 'move', move };
}

/** Of the nodes that would take another task, the best one for each value of what the service spreads over. */
function bestOfDomains({ scheduler }: RebalanceView, request: Request): readonly Candidate[] {
  const compare = comparisonOf(request, scheduler.ledger);
  const best = new Map<string, Candidate>();
  for (const candidate of scheduler.candidates(request)) {
    if (isPassedOver(candidate.usage.node)) continue;
    const key = request.spread.map((attribute) => attributeOf(attribute, candidate.usage.node)).join('\0');
    const before = best.get(key);
    if (!before || compare(candidate, before) < 0) best.set(key, candidate);
  }
  return [...best.values()];
}

/**
 * What a task gains that goes from one node to another: as in the ranking, affinity, then each level of spreading, then
 * the node. Every level that differs must gain, or at least not lose before a deeper one gains. That makes moves end: each
 * lowers the sum of squares of some level, and raises it on none above.
 */
function gainOf(
  view: RebalanceView,
  request: Request,
  source: Usage,
  own: number,
  target: Candidate,
): Gain | 'unclear' | undefined {
  const nearer = unmetOf(view, request, source.node) - unmetOf(view, request, target.usage.node);
  if (nearer < 0) return undefined;
  if (nearer > 0)
    return { level: 0, amount: nearer, reason: `${target.usage.node.name} is nearer to what it asks for` };
  let level = 1;
  for (const attribute of request.spread) {
    const domains = view.scheduler.ledger.domainsOf(request.serviceId, attribute);
    const [from, to] = [attributeOf(attribute, source.node), attributeOf(attribute, target.usage.node)];
    if (from !== to) {
      const [here, there] = [domains.get(from)?.active ?? 0, domains.get(to)?.active ?? 0];
      if (here - there >= 2)
        return {
          level,
          amount: here - there,
          reason: `${from || 'no value'} has ${here} of it, ${to || 'no value'} ${there}`,
        };
      if (here - there < 1) return undefined;
    }
    level++;
  }
  // What is stopping weighs on its node, and will not for long.
  const steady = [source, target.usage].every(({ tasks, active }) => tasks === active);
  const gain =
    strategyOf(request, view.scheduler.ledger) === 'binpack'
      ? gainOfPacking(request, source, own, target, level)
      : gainOfSpreading(request, source, own, target, level);
  return gain && gain.level > level && !steady ? 'unclear' : gain;
}

function gainOfSpreading(
  { reservations }: Request,
  source: Usage,
  own: number,
  target: Candidate,
  level: number,
): Gain | undefined {
  const [from, to] = [source.node.name, target.usage.node.name];
  const fewer = own - target.own;
  if (fewer >= 2) return { level, amount: fewer, reason: `${from} has ${own} of it, ${to} ${target.own}` };
  if (fewer < 1) return undefined;
  if (reservations.cpuMillis > 0 || reservations.memoryBytes > 0) {
    const before = shareWith(source, reservations, 0);
    const gained = before - Math.max(shareWith(source, reservations, -1), shareWith(target.usage, reservations, 1));
    const words = `${from} is ${percent(before)} reserved, ${to} ${percent(target.share)}`;
    return gained >= leastShare ? { level: level + 1, amount: gained, reason: words } : undefined;
  }
  const lighter = source.tasks - target.tasks;
  const words = `${from} has ${source.tasks} tasks, ${to} ${target.tasks}`;
  return lighter >= 2 ? { level: level + 2, amount: lighter, reason: words } : undefined;
}

/** A node that has no other tasks is emptied onto one at least as full, where all of them fit. */
function gainOfPacking(
  { reservations, maxReplicasPerNode }: Request,
  source: Usage,
  own: number,
  { usage, share }: Candidate,
  level: number,
): Gain | undefined {
  if (source.active !== own) return undefined;
  const fuller = share - shareWith(source, reservations, 0) || usage.tasks - source.tasks || source.order - usage.order;
  const fit = shareWith(usage, reservations, own) <= 1 && usage.tasks + own <= usage.addresses;
  if (fuller <= 0 || !fit || maxReplicasPerNode > 0) return undefined;
  return { level: level + 1, amount: -own, reason: `${source.node.name} becomes free` };
}

/** Affinities that do not hold there; not those to its own service, which hold by the other rules. */
function unmetOf({ scheduler }: RebalanceView, { affinities, serviceId, name }: Request, node: Node): number {
  return affinities.filter((one) => one.service !== name && isUnmet(one, serviceId, node, scheduler.ledger)).length;
}

function percent(share: number): string {
  return `${Math.round(share * 100)} %`;
}

function nameOf({ project, name }: ServiceSpec): string {
  return qualifiedName(project, name);
}
