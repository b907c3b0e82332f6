/** Ends everything the agent keeps on a machine, so that the machine is as it was before: the way out of a cluster. */
import { existsSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { describe, isFault } from '#proto/kernel/errors.ts';
import type { Images } from './images/images.ts';
import type { Runtime } from './runtime/runtime.ts';
import type { TaskDocuments } from './volumes/task-documents.ts';

export interface ResetParts {
  readonly data: string;
  readonly run: string;
  /** Removes identity, journal, volumes and logs too. */
  readonly purge: boolean;
  readonly runtime: Pick<Runtime, 'list' | 'delete'>;
  /** undefined: containerd does not answer; what it keeps for tasks stays there. */
  readonly images: Pick<Images, 'rootfs' | 'release'> | undefined;
  readonly documents: Pick<TaskDocuments, 'held' | 'release'>;
  /** Takes everything of ours off the network; what it removed, in words. */
  readonly resetNetwork: () => Promise<readonly string[]>;
}

/**
 * Each thing is tried whatever becomes of the others. What was removed, and what could not be and why, in words; nothing left:
 * `failed` is empty. Doing it again is harmless.
 */
export async function resetNode(
  parts: ResetParts,
): Promise<{ readonly removed: readonly string[]; readonly failed: readonly string[] }> {
  const removed: string[] = [];
  const failed: string[] = [];
  const attempt = async (what: string, action: () => Promise<readonly string[]>) => {
    try {
      removed.push(...(await action()));
    } catch (error) {
      if (!isFault(error) && !(error instanceof Error && 'code' in error)) throw error;
      failed.push(`${what}: ${describe(error)}`);
    }
  };
  const { runtime, images, documents } = parts;
  for (const { id } of await runtime.list()) {
    await attempt(`container ${id}`, async () => {
      await runtime.delete(id);
      return [`container ${id}`];
    });
  }
  for (const id of documents.held()) {
    await attempt(`configs and secrets of ${id}`, async () => {
      documents.release(id);
      return [`configs and secrets of ${id}`];
    });
  }
  for (const id of images ? await images.rootfs() : []) {
    await attempt(`layer of ${id}`, async () => {
      await images?.release(id);
      return [`layer of ${id}`];
    });
  }
  if (!images) failed.push('layers of tasks: containerd does not answer');
  await attempt('network', parts.resetNetwork);
  // A control plane may have its socket beside them.
  const own = ['netns', 'oci', 'documents'].map((name) => join(parts.run, name));
  for (const path of [...own, ...(parts.purge ? [parts.data] : [])]) {
    await attempt(path, async () => {
      if (!existsSync(path)) return [];
      rmSync(path, { recursive: true, force: true });
      return [path];
    });
  }
  return { removed, failed };
}
