/** Where tasks go: filtered once for all tasks of a request, then picked one by one from a ranking. */
import type { NodeId } from '#proto/model/ids.ts';
import { isPassedOver } from '#proto/model/node.ts';
import { concerning, type Filter, filters, homeOf, nodeFilters, type Request } from './filters.ts';
import type { Ledger, Usage } from './ledger.ts';
import { type Candidate, candidateOf, loadOf, Ranking } from './rank.ts';

/** Remembers which nodes can serve a request by their records alone, until a node changes. */
export class Scheduler {
  readonly ledger: Ledger;
  #generation = -1;
  readonly #suitable = new Map<string, readonly Usage[]>();

  constructor(ledger: Ledger) {
    this.ledger = ledger;
  }

  /** Places for tasks of one request. Use it up before the ledger learns of anything else. */
  open(request: Request): Places {
    return new Places(this.ledger, request, this.candidates(request));
  }

  /** Nodes that would take one more task, in no order. */
  candidates(request: Request): Candidate[] {
    const candidates: Candidate[] = [];
    const rules = concerning(request, this.ledger);
    for (const usage of this.#nodesFor(request)) {
      if (passes(rules, request, usage, this.ledger)) candidates.push(candidateOf(request, usage, this.ledger));
    }
    return candidates;
  }

  #nodesFor(request: Request): readonly Usage[] {
    const { ledger } = this;
    if (this.#generation !== ledger.generation) {
      this.#generation = ledger.generation;
      this.#suitable.clear();
      ledger.nodes();
    }
    let nodes = this.#suitable.get(request.nodeKey);
    if (!nodes) {
      nodes = ledger.nodes().filter((usage) => passes(nodeFilters, request, usage, ledger));
      this.#suitable.set(request.nodeKey, nodes);
    }
    if (request.only === undefined) return nodes;
    const usage = ledger.usageOf(request.only);
    return usage && passes(nodeFilters, request, usage, ledger) ? [usage] : [];
  }
}

/** One request's nodes, best first. */
export class Places {
  readonly #ledger: Ledger;
  readonly #request: Request;
  readonly #rules: readonly Filter[];
  #ranking: Ranking;
  /** Nodes that are taken when no other fits any more. */
  #last: readonly Candidate[];
  /** Each task that is placed may close further nodes to the next: it is to be near its own service, or apart. */
  readonly #narrows: boolean;
  #given: Candidate | undefined;

  constructor(ledger: Ledger, request: Request, candidates: readonly Candidate[]) {
    this.#ledger = ledger;
    this.#request = request;
    this.#rules = concerning(request, ledger);
    this.#last = candidates.filter(({ usage }) => isPassedOver(usage.node));
    const first = this.#last.length === 0 ? candidates : candidates.filter(({ usage }) => !isPassedOver(usage.node));
    this.#ranking = new Ranking(request, ledger, first);
    this.#narrows = request.affinities.some(({ service }) => service === request.name);
  }

  /** The best node for one more task; undefined when none fits. Tell the ledger of the task before the next pick. */
  pick(): Usage | undefined {
    this.#settle();
    if (this.#narrows) this.#narrow();
    if (!this.#ranking.best && this.#last.length > 0) this.#takeLast();
    this.#given = this.#ranking.best;
    return this.#given?.usage;
  }

  /** What is asked by now may be more than when they were found. */
  #takeLast(): void {
    const fit = this.#last.filter(({ usage }) => passes(this.#rules, this.#request, usage, this.#ledger));
    this.#last = [];
    const candidates = fit.map(({ usage }) => candidateOf(this.#request, usage, this.#ledger));
    this.#ranking = new Ranking(this.#request, this.#ledger, candidates);
  }

  #narrow(): void {
    for (let { best } = this.#ranking; best; { best } = this.#ranking) {
      if (passes(this.#rules, this.#request, best.usage, this.#ledger)) return;
      this.#ranking.discard();
    }
  }

  /** Counts the task of the last pick in, by what the ledger says of its node now. */
  #settle(): void {
    const given = this.#given;
    if (!given) return;
    this.#given = undefined;
    if (!passes(this.#rules, this.#request, given.usage, this.#ledger)) {
      this.#ranking.drop();
      return;
    }
    given.staying++;
    given.own++;
    const { share, tasks } = loadOf(this.#request, given.usage);
    given.share = share;
    given.tasks = tasks;
    this.#ranking.replace();
  }
}

/** Why no node takes a task of the request: how many nodes each rule refuses first, in words that do not change with every task. */
export function whyNowhere(ledger: Ledger, request: Request): string {
  const nodes = nodesConsidered(ledger, request);
  if (nodes.length === 0) return request.only ? 'its node is gone' : 'there is no node';
  const bound = whyBound(ledger, request);
  if (bound !== '') return bound;
  const counts = new Map<Filter, number>();
  for (const usage of nodes) {
    const refusing = filters.find((filter) => !filter.fits(request, usage, ledger));
    if (refusing) counts.set(refusing, (counts.get(refusing) ?? 0) + 1);
  }
  const parts = filters.flatMap((filter) => {
    const count = counts.get(filter);
    return count === undefined ? [] : [`${count} ${filter.gist(request, ledger)}`];
  });
  return `no node fits (${nodes.length} in all): ${parts.join(', ')}`;
}

/** Where volumes leave only one node, what is the matter with that one; empty where they leave more. */
function whyBound(ledger: Ledger, request: Request): string {
  const homes = request.volumes.flatMap((name) => homeOf(request, name, ledger) ?? []);
  const lost = homes.find(({ nodeId }) => !ledger.usageOf(nodeId));
  if (lost)
    return `volume ${lost.name} was on ${lost.nodeName}, which is no longer a member: x-volume-loss: recreate begins with an empty one`;
  const [home] = homes;
  if (!home) return '';
  const other = homes.find(({ nodeId }) => nodeId !== home.nodeId);
  if (other)
    return `volume ${home.name} is on ${home.nodeName} and volume ${other.name} on ${other.nodeName}: no node has both`;
  const usage = ledger.usageOf(home.nodeId)!;
  const refusing = filters.find((filter) => !filter.fits(request, usage, ledger));
  if (!refusing) return '';
  const matter =
    refusing.rule === 'ready' ? refusing.refusal(request, usage, ledger) : `is ${refusing.gist(request, ledger)}`;
  return `volume ${home.name} is on ${home.nodeName}, which ${matter}`;
}

/** Every node is refused for a reason that will last until somebody acts. */
export function isLasting(ledger: Ledger, request: Request): boolean {
  const nodes = nodesConsidered(ledger, request);
  return (
    nodes.length > 0 &&
    nodes.every((usage) => filters.some((filter) => filter.lasting && !filter.fits(request, usage, ledger)))
  );
}

export function nodesConsidered(ledger: Ledger, request: Request): readonly Usage[] {
  if (request.only === undefined) return ledger.nodes();
  const usage = ledger.usageOf(request.only as NodeId);
  return usage ? [usage] : [];
}

function passes(rules: readonly Filter[], request: Request, usage: Usage, ledger: Ledger): boolean {
  for (const rule of rules) if (!rule.fits(request, usage, ledger)) return false;
  return true;
}
