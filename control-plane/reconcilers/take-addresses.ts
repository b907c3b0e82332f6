/** The addresses of a task that is being placed, as its network mode has them. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Node } from '#proto/model/node.ts';
import type { TaskTemplate } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import type { Books } from './books.ts';
import { networkOwner } from './shared-network.ts';

/** What the task is reached by on this node; a text: why it gets nothing; undefined: the node has no address left. */
export function takeAddresses(
  { books, snapshot, now }: { readonly books: Books; readonly snapshot: Snapshot; readonly now: number },
  task: Task,
  template: TaskTemplate | undefined,
  node: Node,
): Pick<Task, 'address' | 'addresses'> | string | undefined {
  const mode = template?.networkMode ?? '';
  if (mode === 'host') return { address: node.address, addresses: [] };
  if (mode === 'none') return { address: '', addresses: [] };
  const owner = networkOwner(snapshot, task.project, mode, task);
  if (owner !== undefined) return typeof owner === 'string' ? owner : { address: owner.address, addresses: [] };
  const address = books.addresses.take(node.id, now);
  if (address === undefined) return undefined;
  const addresses = books.networkAddresses.take(template?.networks ?? [], now);
  return typeof addresses === 'string' ? addresses : { address, addresses };
}
