/** Why a task sits where it sits, or nowhere: every rule's word about every node. */
import { isPassedOver } from '#proto/model/node.ts';
import { filters, type Request } from './filters.ts';
import type { Ledger } from './ledger.ts';
import { nodesConsidered, Scheduler, whyNowhere } from './place.ts';

export interface ExplainedNode {
  readonly nodeId: string;
  readonly node: string;
  /** By column: empty where the rule is kept, else the refusal. */
  readonly verdicts: readonly string[];
  readonly chosen: boolean;
  /** What it is ranked by: "2 of this service, 14 tasks". */
  readonly rank: string;
}

export interface Explanation {
  /** The table's columns. */
  readonly rules: readonly string[];
  readonly rows: readonly ExplainedNode[];
  readonly summary: string;
}

/** The table for one task of the request, as if it were to be placed now. `chosen`: the node it is on, where it is on one. */
export function explain(ledger: Ledger, request: Request, chosen?: string): Explanation {
  const rows = nodesConsidered(ledger, request).map((usage): ExplainedNode => {
    const own = ledger.serviceOn(request.serviceId, usage.node.id).active;
    return {
      nodeId: usage.node.id,
      node: usage.node.name,
      verdicts: filters.map((filter) =>
        filter.fits(request, usage, ledger) ? '' : filter.refusal(request, usage, ledger),
      ),
      chosen: usage.node.id === chosen,
      rank: `${own} of this service, ${usage.tasks} ${usage.tasks === 1 ? 'task' : 'tasks'}${isPassedOver(usage.node) ? ', flapping: after all others' : ''}`,
    };
  });
  return { rules: filters.map(({ rule }) => rule), rows, summary: summaryOf(ledger, request) };
}

function summaryOf(ledger: Ledger, request: Request): string {
  const best = new Scheduler(ledger).open(request).pick();
  return best ? `${best.node.name} would take it now` : whyNowhere(ledger, request);
}
