/** What of a changed record makes the controllers look again. */
import { same } from '#control-plane/reconcilers/same.ts';
import { isPassedOver, type Node } from '#proto/model/node.ts';
import type { Task } from '#proto/model/task.ts';

/** Something that a reconciler looks at has changed. */
export function differs(a: Task, b: Task): boolean {
  return (
    a.state !== b.state ||
    a.wanted !== b.wanted ||
    a.health !== b.health ||
    a.nodeId !== b.nodeId ||
    a.absence?.sinceMs !== b.absence?.sinceMs ||
    (a.error === '') !== (b.error === '')
  );
}

/** Equal in all that decides which subnets nodes have. */
export function sameGround(a: Node, b: Node): boolean {
  return (
    a.subnet === b.subnet &&
    a.state === b.state &&
    a.bootId === b.bootId &&
    a.pinnedSubnet === b.pinnedSubnet &&
    same(a.foreignNetworks, b.foreignNetworks)
  );
}

/** It gets the subnet that it was started with once it has no tasks. */
export function waitsForSubnet(node: Node | undefined): boolean {
  return node !== undefined && node.pinnedSubnet !== '' && node.pinnedSubnet !== node.subnet;
}

/** Equal in all that decides where tasks may be. One whose agent is away takes no new ones: to those that it has nothing happens. */
export function samePlace(a: Node, b: Node): boolean {
  return a.away === b.away && a.fenced === b.fenced && sameHome(a, b);
}

/** Equal in all that decides whether its tasks may stay, and what becomes of them; of singletons its lease does, too. */
export function sameHome(a: Node, b: Node): boolean {
  return (
    a.state === b.state &&
    a.unaccounted === b.unaccounted &&
    a.availability === b.availability &&
    isPassedOver(a) === isPassedOver(b) &&
    a.subnet === b.subnet &&
    same(a.labels, b.labels) &&
    same(a.capacity, b.capacity) &&
    same(a.platform, b.platform) &&
    same(a.runtimes, b.runtimes)
  );
}
