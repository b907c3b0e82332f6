/** Where volumes come to be: on the node that the first task which mounts them goes to. */
import { homeOf, type Request } from '#control-plane/scheduler/filters.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import type { Node } from '#proto/model/node.ts';
import type { Books } from './books.ts';

export interface NewHomes {
  /** It was not in the books yet: other tasks are bound to this node from now on. */
  readonly news: boolean;
  /** Volumes whose records are to be written. */
  readonly names: readonly string[];
}

/**
 * Puts the request's volumes on the node. What another decision is about to write is to be written here too: whichever is
 * committed, the record is there with the first task that relies on it.
 */
export function giveHomes(
  { books, snapshot, now }: { readonly books: Books; readonly snapshot: Snapshot; readonly now: number },
  request: Request,
  node: Node,
): NewHomes {
  let news = false;
  for (const name of request.volumes) {
    if (homeOf(request, name, books.ledger)) continue;
    books.ledger.setVolume(name, { name, nodeId: node.id, nodeName: node.name, createdAtMs: now });
    news = true;
  }
  const isWritten = (name: string) => snapshot.get('volume', name)?.value.nodeId === node.id;
  return { news, names: request.volumes.filter((name) => !isWritten(name)) };
}
