/** All that is mounted into one task's container: its volumes, its configs and secrets, and the files made for it. */
import { existsSync, readdirSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { TaskAssignment } from '#proto/model/assignment.ts';
import type { DocumentContent } from '#proto/model/document.ts';
import { isId, type TaskId } from '#proto/model/ids.ts';
import { type EtcSettings, etcMounts, writeEtcFiles } from '../runtime/etc-files.ts';
import type { ImageConfig, PreparedMount, RootfsMount } from '../runtime/runtime.ts';
import type { TaskDocuments } from './task-documents.ts';
import type { Volumes } from './volumes.ts';

export interface TaskMountsRequest {
  readonly wanted: Pick<TaskAssignment, 'task' | 'template'>;
  readonly image: { readonly config: ImageConfig };
  readonly rootfs: readonly RootfsMount[];
  /** For the files that are made; or the task whose network it has: it has that one's files too. */
  readonly etc: EtcSettings | { readonly of: TaskId };
  /** Of the configs and secrets that its template names, all of them. */
  readonly contents: readonly DocumentContent[];
}

export interface TaskMounts {
  /** In the order to be mounted. Faults as `Volumes.prepare`. */
  prepare(request: TaskMountsRequest): Promise<readonly PreparedMount[]>;
  /** Drops what belongs to the task alone; nothing where there is none. */
  release(task: TaskId): Promise<void>;
  /** Tasks of which something is here. */
  held(): Promise<readonly TaskId[]>;
}

/** `data`: the agent's directory; `task-files/` is made in it. */
export function taskMounts(parts: {
  readonly data: string;
  readonly volumes: Volumes;
  readonly documents: TaskDocuments;
}): TaskMounts {
  const files = join(parts.data, 'task-files');
  return {
    async prepare({ wanted, image, rootfs, etc, contents }) {
      const { task, template } = wanted;
      const volumes = await parts.volumes.prepare({
        task: task.id,
        mounts: template.container.mounts,
        imageVolumes: image.config.volumes,
        rootfs,
        privileged: template.container.privileged,
      });
      const made =
        'of' in etc ? etcMounts(join(files, etc.of)) : writeEtcFiles(join(files, task.id), etc, template.container);
      const documents = parts.documents.prepare(task.id, template.documents, contents);
      const asked = [...volumes, ...documents];
      // What the user mounts there goes before what would be made.
      const taken = new Set(asked.map(({ target }) => target));
      return [...made.filter(({ target }) => !taken.has(target)), ...asked];
    },
    async release(task) {
      if (isId(task)) await rm(join(files, task), { recursive: true, force: true });
      parts.documents.release(task);
      await parts.volumes.release(task);
    },
    async held() {
      const here = existsSync(files) ? (readdirSync(files).filter(isId) as TaskId[]) : [];
      return [...new Set([...here, ...parts.documents.held(), ...(await parts.volumes.held())])];
    },
  };
}
