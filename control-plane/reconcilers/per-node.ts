/** Which nodes a global service has a seat on: every one that is ready and suits it. */
import type { Node } from '#proto/model/node.ts';
import { isActive } from '#proto/model/task.ts';
import { leave, type Seating } from './replicated.ts';
import { activeOf, type Opinion, type Seat } from './seats.ts';

/** `unfit`: why tasks of the service may not be on a node by its record; empty where they may. */
export function perNode(
  nodes: Iterable<Node>,
  seats: ReadonlyMap<string, Seat>,
  unfit: (node: Node) => string,
): Seating {
  const wanted: Seat[] = [];
  const away: Seat[] = [];
  const kept = new Set<string>();
  const whys = new Map<string, string>();
  const waiting: Opinion[] = [];
  for (const node of nodes) {
    const why = unfit(node);
    const seat = seats.get(node.id);
    if (why !== '') whys.set(node.id, why);
    else if (node.availability === 'pause' && !(seat && activeOf(seat).length > 0)) {
      whys.set(node.id, `node ${node.name} takes no new tasks`);
    } else if (node.state === 'ready' && !node.unaccounted) {
      kept.add(node.id);
      wanted.push({ slot: 0, nodeId: node.id, nodeName: node.name, tasks: seat?.tasks ?? [] });
    } else {
      kept.add(node.id);
      if (seat) away.push(seat);
      // When it is back, it gets what is wanted then.
      for (const task of seat?.tasks ?? []) {
        if (isActive(task) && task.nodeId === '')
          waiting.push({ kind: 'stop', task, why: `node ${node.name} is ${node.state}` });
      }
    }
  }
  const opinions = [...seats].flatMap(([key, seat]) =>
    kept.has(key) ? [] : leave(seat, whys.get(key) ?? `node ${seat.nodeName} is gone`),
  );
  wanted.sort((a, b) => (a.nodeName < b.nodeName ? -1 : 1));
  return { wanted, away, opinions: [...opinions, ...waiting] };
}
