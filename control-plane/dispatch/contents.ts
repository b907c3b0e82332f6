/** Which contents of configs and secrets a node has been sent, and for which of its tasks: it gets them before the first, and they go with the last. Pure. */
import type { AssignmentItem, TaskAssignment } from '#proto/model/assignment.ts';
import { contentsOf, type DocumentRef } from '#proto/model/document.ts';

export class SentContents {
  readonly #ofTask = new Map<string, ReadonlyMap<string, DocumentRef>>();
  /** How many of its tasks need each, by key. */
  readonly #uses = new Map<string, number>();

  /** The node gets the task: what it has to be sent before. */
  needed({ task, template }: Pick<TaskAssignment, 'task' | 'template'>): readonly DocumentRef[] {
    if (template.documents.length === 0 || this.#ofTask.has(task.id)) return [];
    const contents = contentsOf(template);
    this.#ofTask.set(task.id, contents);
    const first: DocumentRef[] = [];
    for (const [key, ref] of contents) {
      const uses = this.#uses.get(key) ?? 0;
      this.#uses.set(key, uses + 1);
      if (uses === 0) first.push(ref);
    }
    return first;
  }

  /** The task has gone from the node: the keys of what it needs no longer. */
  dropped(task: string): readonly string[] {
    const contents = this.#ofTask.get(task);
    if (!contents) return [];
    this.#ofTask.delete(task);
    const last: string[] = [];
    for (const key of contents.keys()) {
      const uses = this.#uses.get(key)! - 1;
      if (uses > 0) this.#uses.set(key, uses);
      else {
        this.#uses.delete(key);
        last.push(key);
      }
    }
    return last;
  }
}

/** Items in one message, and bytes of contents: more than one of the largest goes over no one's limit. */
export const partSize = 500;
const partBytes = 8 * 1024 * 1024;

/** What one message can hold each, in order. */
export function* partsOf(items: readonly AssignmentItem[]): Generator<readonly AssignmentItem[]> {
  let part: AssignmentItem[] = [];
  let bytes = 0;
  for (const item of items) {
    const weight = item.kind === 'content' ? item.data.length : 0;
    if (part.length === partSize || (part.length > 0 && bytes + weight > partBytes)) {
      yield part;
      part = [];
      bytes = 0;
    }
    part.push(item);
    bytes += weight;
  }
  yield part;
}
