/** What a task's configs and secrets say: in memory only, so after a restart of the agent it is waited for again. */
import { contentsOf, type DocumentContent, type DocumentRef } from '#proto/model/document.ts';
import type { Waiting } from '../waiting.ts';
import type { Asked } from './task-network.ts';

export interface TaskContentsParts {
  /** As far as they have come. */
  readonly content: (ref: DocumentRef) => DocumentContent | undefined;
  /** Something has come. */
  readonly waiting: Waiting;
}

/** All of them, when the last one has come. Rejects with the signal's reason. */
export async function awaitContents(
  { content, waiting }: TaskContentsParts,
  { wanted, signal, say }: Asked,
): Promise<readonly DocumentContent[]> {
  const refs = [...contentsOf(wanted.template).values()];
  for (;;) {
    const missing = refs.find((ref) => !content(ref));
    if (!missing) return refs.flatMap((ref) => content(ref) ?? []);
    say(`waits for ${missing.type} ${missing.name}, which the control plane has not sent yet`);
    await waiting.next(signal);
  }
}
