/** Tasks whose node is down or gone: whether they are counted on to come back with it, and what becomes of them when it does.
 * A singleton holds its seat until the lease of its node is over, and with it its life.
 *
 *   active ──node down──▶ absent ──node back, its agent has said what runs──▶ active (or ended, if that is what it said)
 *      │                    └─ node gone, or booted anew · waited for long enough · its seat is given up ─▶ orphaned
 *      └─ nothing that may come back: ─▶ orphaned
 */
import { defaultOrphanAfterMs } from '#proto/model/cluster.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service, TaskTemplate } from '#proto/model/service.ts';
import { isAbsent, isActive, occupiesNode, type Task } from '#proto/model/task.ts';
import { pinnedVolumes } from '#proto/model/volume.ts';
import { type Advice, never, type Opinion, seatedAtMs } from './seats.ts';

export interface AbsenceFacts {
  readonly service: Service;
  /** Wall clock, ms. */
  readonly now: number;
  /** How long tasks are counted on; undefined: the default. */
  readonly orphanAfterMs: number | undefined;
  nodeOf(task: Task): Node | undefined;
  templateOf(task: Task): TaskTemplate | undefined;
  /** It comes back after the one whose network it has. */
  waits(task: Task): boolean;
}

/** Which tasks go absent, come back, or are lost, and when to look again. */
export function absences(facts: AbsenceFacts, tasks: readonly Task[]): Advice {
  const opinions: Opinion[] = [];
  let wakeAtMs = never;
  // Behind whoever had the seat meanwhile even if the clock was set back.
  const returnAtMs = tasks.reduce((atMs, task) => Math.max(atMs, seatedAtMs(task) + 1), facts.now);
  for (const task of tasks) {
    if (!occupiesNode(task)) continue;
    const node = facts.nodeOf(task);
    const opinion = fateOf(facts, task, node, returnAtMs);
    if (opinion) opinions.push(opinion);
    if (node?.state === 'down' && opinion?.kind !== 'orphan') wakeAtMs = Math.min(wakeAtMs, lostAtMs(facts, task));
  }
  return { opinions, wakeAtMs };
}

/** Whether somebody else may have the seat of an absent task: a node that is back says in a moment what became of it. */
export function mayReplace(node: Node | undefined): boolean {
  return node === undefined || node.state === 'down';
}

function fateOf(facts: AbsenceFacts, task: Task, node: Node | undefined, returnAtMs: number): Opinion | undefined {
  if (!node) return { kind: 'orphan', task, why: `node ${task.nodeName} is gone` };
  if (task.singleton) {
    const why = `the lease of node ${node.name} is over: no singleton runs on it`;
    return node.fenced ? { kind: 'orphan', task, why } : undefined;
  }
  const { absence } = task;
  if (node.state === 'down') {
    const why = `node ${node.name} is down`;
    if (!mayReturn(facts, task)) return { kind: 'orphan', task, why };
    if (!absence) return { kind: 'absent', task, bootId: node.bootId, why };
    if (lostAtMs(facts, task) > facts.now) return undefined;
    return { kind: 'orphan', task, why: `node ${node.name} did not come back` };
  }
  if (!absence || !isHeard(node)) return undefined;
  if (absence.bootId !== node.bootId) return { kind: 'orphan', task, why: `node ${node.name} was started anew` };
  if (facts.waits(task)) return undefined;
  return { kind: 'return', task, atMs: returnAtMs, why: `node ${node.name} is back, and it is still there` };
}

/** It is there, and its agent has said what runs. */
function isHeard(node: Node): boolean {
  return node.state === 'ready' && !node.unaccounted;
}

/** Not what is to stop anyway, nor what its successor takes something from that two cannot have. */
function mayReturn({ service, orphanAfterMs, templateOf }: AbsenceFacts, task: Task): boolean {
  // What was only prepared runs nowhere, and has nothing that anybody would come back for.
  if (orphanAfterMs === 0 || service.removing || task.wanted === 'ready') return false;
  if (!(isActive(task) || isAbsent(task))) return false;
  const template = templateOf(task);
  if (!template || template.networks.some(({ ipv4Address }) => ipv4Address !== '')) return false;
  return service.spec.volumeLoss !== 'recreate' || pinnedVolumes(service.spec.mode, template).length === 0;
}

function lostAtMs({ orphanAfterMs = defaultOrphanAfterMs, now }: AbsenceFacts, { absence }: Task): number {
  return (absence?.sinceMs ?? now) + orphanAfterMs;
}

/** What becomes of its record: it counts as ended now, whatever became of it. */
export function orphaned(task: Task, why: string, now: number): Task {
  const ended = { state: 'orphaned', wanted: 'shutdown', stateAtMs: now, finishedAtMs: now } as const;
  return { ...task, ...ended, absence: undefined, why, message: why };
}
