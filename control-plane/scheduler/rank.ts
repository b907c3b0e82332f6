/** Which of the nodes that fit comes first: a tree of heaps, a level for each spread preference, in which one pick moves one path. */
import type { Node } from '#proto/model/node.ts';
import { type Attribute, attributeOf } from './constraint.ts';
import type { Request } from './filters.ts';
import type { Ledger, Usage } from './ledger.ts';

/** A node that fits, and what it is ranked by, best first: not shunned, fewest of this service that stay, fewest of it, least reserved, fewest tasks, name. */
export interface Candidate {
  readonly usage: Usage;
  readonly shunned: boolean;
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

/** The part of the node that is reserved: the larger of processor and memory. */
export function shareOf(usage: Usage): number {
  const { capacity } = usage.node;
  const cpu = capacity.cpuMillis > 0 ? usage.cpuMillis / capacity.cpuMillis : 0;
  const memory = capacity.memoryBytes > 0 ? usage.memoryBytes / capacity.memoryBytes : 0;
  return Math.max(cpu, memory);
}

export function candidateOf(request: Request, usage: Usage, ledger: Ledger): Candidate {
  const own = ledger.serviceOn(request.serviceId, usage.node.id).active;
  const staying = request.staying ? (request.staying.get(usage.node.id) ?? 0) : own;
  return {
    usage,
    shunned: request.shunned.has(usage.node.id),
    staying,
    own,
    share: shareOf(usage),
    tasks: usage.tasks,
  };
}

/** Negative when `a` is the better node. Total: no two nodes are equal. */
export function compareCandidates(a: Candidate, b: Candidate): number {
  if (a.shunned !== b.shunned) return a.shunned ? 1 : -1;
  return (
    a.staying - b.staying || a.own - b.own || a.share - b.share || a.tasks - b.tasks || a.usage.order - b.usage.order
  );
}

/** The nodes that fit, best first. `best` stays valid until `replace` or `drop` is called for it. */
export class Ranking {
  readonly #root: Branch = newBranch();
  readonly #spread: readonly Attribute[];

  constructor(request: Request, ledger: Ledger, candidates: readonly Candidate[]) {
    this.#spread = request.spread;
    for (const candidate of candidates) {
      const path = this.#path(candidate.usage.node, true);
      path.at(-1)!.candidates.push(candidate);
    }
    for (const [id, { active }] of ledger.nodesOf(request.serviceId)) {
      const usage = ledger.usageOf(id);
      if (!usage) continue;
      const staying = request.staying ? (request.staying.get(id) ?? 0) : active;
      for (const branch of this.#path(usage.node, false)) {
        branch.staying += staying;
        branch.seats += active;
      }
    }
    order(this.#root);
  }

  get best(): Candidate | undefined {
    return bestOf(this.#root);
  }

  /** The best node was given one more task and may take another: its place is found again. */
  replace(): void {
    this.#settle(this.#root, false);
  }

  /** The best node was given one more task and takes no other. */
  drop(): void {
    this.#settle(this.#root, true);
  }

  #settle(branch: Branch, drop: boolean): void {
    branch.staying++;
    branch.seats++;
    if (branch.branches.length > 0) {
      const child = branch.branches[0]!;
      this.#settle(child, drop);
      if (bestOf(child) === undefined) removeTop(branch.branches, compareBranches);
      else siftDown(branch.branches, 0, compareBranches);
    } else if (drop) removeTop(branch.candidates, compareCandidates);
    else siftDown(branch.candidates, 0, compareCandidates);
  }

  /** The branches from the root to the node's; without `grow` only as far as they are there. */
  #path(node: Node, grow: boolean): Branch[] {
    let branch = this.#root;
    const path = [branch];
    for (const attribute of this.#spread) {
      const value = attributeOf(attribute, node);
      let child = branch.byValue.get(value);
      if (!child) {
        if (!grow) return path;
        child = newBranch();
        branch.byValue.set(value, child);
        branch.branches.push(child);
      }
      branch = child;
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

/** A branch whose best node is shunned comes last, then fewest seats that stay, fewest seats, then the better node. */
function compareBranches(a: Branch, b: Branch): number {
  const [left, right] = [bestOf(a)!, bestOf(b)!];
  if (left.shunned !== right.shunned) return left.shunned ? 1 : -1;
  return a.staying - b.staying || a.seats - b.seats || compareCandidates(left, right);
}

function order(branch: Branch): void {
  for (const child of branch.branches) order(child);
  heapify(branch.branches, compareBranches);
  heapify(branch.candidates, compareCandidates);
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
