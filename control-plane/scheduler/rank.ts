/** Which of the nodes that fit comes first: a tree of heaps, a level for each spread preference, in which one pick moves one path. */
import type { Node } from '#proto/model/node.ts';
import type { Resources } from '#proto/model/resources.ts';
import { isUnmet } from './affinity.ts';
import { type Attribute, attributeOf } from './constraint.ts';
import type { Request } from './filters.ts';
import type { Ledger, Usage } from './ledger.ts';

/**
 * A node that fits, and what it is ranked by, best first: not shunned, fewest preferred affinities unmet; then to spread:
 * fewest of this service that stay, fewest of it, least reserved, fewest tasks, name; to pack: most reserved, most tasks, name.
 */
export interface Candidate {
  readonly usage: Usage;
  readonly shunned: boolean;
  readonly unmet: number;
  staying: number;
  own: number;
  share: number;
  tasks: number;
}

interface Branch {
  /** Seats of the service that stay, and all of them, on all nodes below, whether they fit or not. */
  staying: number;
  seats: number;
  /** Of branches at inner levels, else empty. */
  readonly branches: Branch[];
  readonly byValue: Map<string, Branch>;
  /** Of nodes at the last level, else empty. */
  readonly candidates: Candidate[];
}

/** The part of the node that is reserved, the larger of processor and memory, with so many tasks more that reserve this; with fewer, where it is negative. */
export function shareWith(usage: Usage, { cpuMillis, memoryBytes }: Resources, count: number): number {
  const { capacity } = usage.node;
  const cpu = capacity.cpuMillis > 0 ? (usage.cpuMillis + count * cpuMillis) / capacity.cpuMillis : 0;
  const memory = capacity.memoryBytes > 0 ? (usage.memoryBytes + count * memoryBytes) / capacity.memoryBytes : 0;
  return Math.max(cpu, memory);
}

export function candidateOf(request: Request, usage: Usage, ledger: Ledger): Candidate {
  const own = ledger.serviceOn(request.serviceId, usage.node.id).active - leavingFrom(request, usage);
  const staying = request.staying ? (request.staying.get(usage.node.id) ?? 0) : own;
  return {
    usage,
    shunned: request.shunned.has(usage.node.id),
    unmet: unmetPreferences(request, usage, ledger),
    staying,
    own,
    ...loadOf(request, usage),
  };
}

/** What the node holds for everybody, without who leaves. */
export function loadOf(request: Request, usage: Usage): Pick<Candidate, 'share' | 'tasks'> {
  const leaving = leavingFrom(request, usage);
  return { share: Math.max(0, shareWith(usage, request.reservations, -leaving)), tasks: usage.tasks - leaving };
}

function leavingFrom({ leaving }: Request, { node }: Usage): number {
  return leaving.get(node.id) ?? 0;
}

/** Preferred affinities that do not hold on the node. */
export function unmetPreferences(request: Request, usage: Usage, ledger: Ledger): number {
  let unmet = 0;
  for (const affinity of request.affinities)
    if (affinity.preferred && isUnmet(affinity, request.serviceId, usage.node, ledger)) unmet++;
  return unmet;
}

export function strategyOf(request: Request, ledger: Ledger): 'spread' | 'binpack' {
  return request.strategy || ledger.strategy;
}

export function comparisonOf(request: Request, ledger: Ledger): Comparison {
  return comparisons[strategyOf(request, ledger)];
}

/** Negative when `a` is the better node. Total: no two nodes are equal. */
type Comparison = (a: Candidate, b: Candidate) => number;

const comparisons: Readonly<Record<'spread' | 'binpack', Comparison>> = {
  spread: (a, b) =>
    compareReluctance(a, b) ||
    a.staying - b.staying ||
    a.own - b.own ||
    a.share - b.share ||
    a.tasks - b.tasks ||
    a.usage.order - b.usage.order,
  binpack: (a, b) => compareReluctance(a, b) || b.share - a.share || b.tasks - a.tasks || a.usage.order - b.usage.order,
};

function compareReluctance(a: Candidate, b: Candidate): number {
  return Number(a.shunned) - Number(b.shunned) || a.unmet - b.unmet;
}

/** The nodes that fit, best first. `best` stays valid until `replace` or `drop` is called for it. */
export class Ranking {
  readonly #root: Branch = newBranch();
  readonly #spread: readonly Attribute[];
  readonly #compare: Comparison;
  readonly #compareBranches: (a: Branch, b: Branch) => number;

  constructor(request: Request, ledger: Ledger, candidates: readonly Candidate[]) {
    this.#spread = request.spread;
    const compare = comparisonOf(request, ledger);
    this.#compare = compare;
    this.#compareBranches = (a, b) => compareBranches(a, b, compare);
    for (const candidate of candidates) {
      this.#leafOf(candidate.usage.node).candidates.push(candidate);
    }
    for (const [id, { active }] of ledger.nodesOf(request.serviceId)) {
      const usage = ledger.usageOf(id);
      if (!usage) continue;
      const seats = active - leavingFrom(request, usage);
      const staying = request.staying ? (request.staying.get(id) ?? 0) : seats;
      for (const branch of this.#path(usage.node)) {
        branch.staying += staying;
        branch.seats += seats;
      }
    }
    this.#order(this.#root);
  }

  get best(): Candidate | undefined {
    return bestOf(this.#root);
  }

  /** The best node was given one more task and may take another: its place is found again. */
  replace(): void {
    this.#settle(this.#root, 1, false);
  }

  /** The best node was given one more task and takes no other. */
  drop(): void {
    this.#settle(this.#root, 1, true);
  }

  /** The best node was given nothing, and takes nothing any more. */
  discard(): void {
    this.#settle(this.#root, 0, true);
  }

  #settle(branch: Branch, given: 0 | 1, drop: boolean): void {
    branch.staying += given;
    branch.seats += given;
    if (branch.branches.length > 0) {
      const child = branch.branches[0]!;
      this.#settle(child, given, drop);
      if (bestOf(child) === undefined) removeTop(branch.branches, this.#compareBranches);
      else siftDown(branch.branches, 0, this.#compareBranches);
    } else if (drop) removeTop(branch.candidates, this.#compare);
    else siftDown(branch.candidates, 0, this.#compare);
  }

  #order(branch: Branch): void {
    for (const child of branch.branches) this.#order(child);
    heapify(branch.branches, this.#compareBranches);
    heapify(branch.candidates, this.#compare);
  }

  /** The node's branch at the last level; made where it is missing. */
  #leafOf(node: Node): Branch {
    let branch = this.#root;
    for (const attribute of this.#spread) {
      const value = attributeOf(attribute, node);
      let child = branch.byValue.get(value);
      if (!child) {
        child = newBranch();
        branch.byValue.set(value, child);
        branch.branches.push(child);
      }
      branch = child;
    }
    return branch;
  }

  /** The branches from the root to the node's, as far as they are there. */
  #path(node: Node): Branch[] {
    let branch: Branch | undefined = this.#root;
    const path = [branch];
    for (const attribute of this.#spread) {
      branch = branch.byValue.get(attributeOf(attribute, node));
      if (!branch) break;
      path.push(branch);
    }
    return path;
  }
}

function newBranch(): Branch {
  return { staying: 0, seats: 0, branches: [], byValue: new Map(), candidates: [] };
}

function bestOf(branch: Branch): Candidate | undefined {
  let at: Branch | undefined = branch;
  while (at && at.branches.length > 0) at = at.branches[0];
  return at?.candidates[0];
}

/** A branch whose best node is shunned, or leaves preferences unmet, comes last, then fewest seats that stay, fewest seats, then the better node. */
function compareBranches(a: Branch, b: Branch, compare: Comparison): number {
  const [left, right] = [bestOf(a)!, bestOf(b)!];
  return compareReluctance(left, right) || a.staying - b.staying || a.seats - b.seats || compare(left, right);
}

function heapify<T>(heap: T[], compare: (a: T, b: T) => number): void {
  for (let at = (heap.length >> 1) - 1; at >= 0; at--) siftDown(heap, at, compare);
}

function siftDown<T>(heap: T[], from: number, compare: (a: T, b: T) => number): void {
  const length = heap.length;
  if (from >= length) return;
  const item = heap[from]!;
  let at = from;
  for (let child = 2 * at + 1; child < length; child = 2 * at + 1) {
    if (child + 1 < length && compare(heap[child + 1]!, heap[child]!) < 0) child++;
    if (compare(item, heap[child]!) <= 0) break;
    heap[at] = heap[child]!;
    at = child;
  }
  heap[at] = item;
}

function removeTop<T>(heap: T[], compare: (a: T, b: T) => number): void {
  const last = heap.pop()!;
  if (heap.length === 0) return;
  heap[0] = last;
  siftDown(heap, 0, compare);
}
