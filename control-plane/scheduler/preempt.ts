/** Who must leave so that a task of higher priority fits: the least important ones, and no more of them than it takes. */
import type { NodeId } from '#proto/model/ids.ts';
import { isWanted, occupiesNode, type Task } from '#proto/model/task.ts';
import { type Filter, filters, makesRoom, type Request } from './filters.ts';
import type { Ledger, Usage } from './ledger.ts';
import { nodesConsidered } from './place.ts';

export interface Preemption {
  readonly usage: Usage;
  /** Least important first; none where those that are stopping already make enough room. */
  readonly victims: readonly Task[];
}

/** Nodes that are looked at task by task; which ones, their sums say. */
const mostNodes = 32;

/**
 * The node where the most important victim is the least important, then where there are fewest. Only tasks of lower priority
 * leave. `tasksOn`: what is on a node, of which some may be stopping.
 */
export function preempt(
  ledger: Ledger,
  request: Request,
  priority: number,
  tasksOn: (node: NodeId) => Iterable<Task>,
): Preemption | undefined {
  const kept = filters.filter((filter) => !makesRoom.has(filter));
  const bounds: { readonly usage: Usage; readonly bound: number }[] = [];
  for (const usage of nodesConsidered(ledger, request)) {
    if (!kept.every((filter) => filter.fits(request, usage, ledger))) continue;
    const bound = leastPriority(request, usage, priority);
    if (bound !== undefined) bounds.push({ usage, bound });
  }
  bounds.sort((a, b) => a.bound - b.bound || a.usage.order - b.usage.order);
  let best: Preemption | undefined;
  for (const { usage, bound } of bounds.slice(0, mostNodes)) {
    // Sums promise no more than this: no node from here on can be better.
    if (best && bound > mostImportant(best, ledger)) break;
    const victims = victimsOn(ledger, request, usage, priority, [...tasksOn(usage.node.id)]);
    if (victims && (!best || isBetter({ usage, victims }, best, ledger))) best = { usage, victims };
  }
  return best;
}

/** Who would have to leave this node, as `preempt` sees it; undefined: nobody's leaving helps. */
export function leaversOf(
  ledger: Ledger,
  request: Request,
  usage: Usage,
  priority: number,
  tasks: readonly Task[],
): readonly Task[] | undefined {
  const stays = filters.some((filter) => !makesRoom.has(filter) && !filter.fits(request, usage, ledger));
  return stays ? undefined : victimsOn(ledger, request, usage, priority, tasks);
}

/** The lowest priority up to which tasks must leave for the sums to fit; -1: none need; undefined: not even all that may. */
function leastPriority(request: Request, usage: Usage, priority: number): number | undefined {
  const { capacity } = usage.node;
  const { cpuMillis, memoryBytes, pids } = request.reservations;
  // What stays: all that holds a seat, less, from the least important on, what leaves.
  let [cpu, memory, processes, tasks] = [0, 0, 0, 0];
  const classes = [...usage.byPriority].sort(([a], [b]) => a - b);
  for (const [, held] of classes) {
    cpu += held.cpuMillis;
    memory += held.memoryBytes;
    processes += held.pids;
    tasks += held.tasks;
  }
  const fits = () =>
    (cpuMillis === 0 || cpu + cpuMillis <= capacity.cpuMillis) &&
    (memoryBytes === 0 || memory + memoryBytes <= capacity.memoryBytes) &&
    (pids === 0 || capacity.pids === 0 || processes + pids <= capacity.pids) &&
    (!request.ownAddress || tasks < usage.addresses);
  if (fits()) return -1;
  for (const [of, held] of classes) {
    if (of >= priority) return undefined;
    cpu -= held.cpuMillis;
    memory -= held.memoryBytes;
    processes -= held.pids;
    tasks -= held.tasks;
    if (fits()) return of;
  }
  return undefined;
}

/** The victims on this node; undefined where all that may leave would not be enough. */
function victimsOn(
  ledger: Ledger,
  request: Request,
  usage: Usage,
  priority: number,
  tasks: readonly Task[],
): Task[] | undefined {
  const present = tasks.filter(occupiesNode);
  const stopping = present.filter((task) => !isWanted(task));
  const classOf = (task: Task) => ledger.priorityOf(task.serviceId);
  const evictable = present
    .filter((task) => isWanted(task) && classOf(task) < priority)
    .sort((a, b) => classOf(a) - classOf(b) || b.createdAtMs - a.createdAtMs || (a.id < b.id ? -1 : 1));
  const fits = (gone: readonly Task[]) => {
    const left = ledger.without(usage, [...stopping, ...gone]);
    return [...makesRoom].every((filter: Filter) => filter.fits(request, left, ledger));
  };
  if (fits([])) return [];
  const priorities = [...new Set(evictable.map(classOf))];
  const enough = priorities.find((most) => fits(evictable.filter((task) => classOf(task) <= most)));
  if (enough === undefined) return undefined;
  let victims = evictable.filter((task) => classOf(task) <= enough);
  // Whoever need not leave stays: the most important first, and of those the oldest.
  for (const task of [...victims].reverse()) {
    const fewer = victims.filter((one) => one !== task);
    if (fits(fewer)) victims = fewer;
  }
  return victims;
}

function isBetter(a: Preemption, b: Preemption, ledger: Ledger): boolean {
  const order =
    mostImportant(a, ledger) - mostImportant(b, ledger) ||
    a.victims.length - b.victims.length ||
    a.usage.order - b.usage.order;
  return order < 0;
}

function mostImportant({ victims }: Preemption, ledger: Ledger): number {
  return Math.max(-1, ...victims.map(({ serviceId }) => ledger.priorityOf(serviceId)));
}
