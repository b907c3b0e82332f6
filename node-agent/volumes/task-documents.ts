/** Configs and secrets as files of a task: on a tmpfs of its own, which no disk ever sees, and which ends with it. */
import { chmodSync, chownSync, existsSync, mkdirSync, readdirSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import { contentKey, type DocumentContent, type DocumentMount } from '#proto/model/document.ts';
import { isId, type TaskId } from '#proto/model/ids.ts';
import { CallError, mount, mountFlags, unmount } from '../runtime/libc.ts';
import type { PreparedMount } from '../runtime/runtime.ts';

export interface TaskDocuments {
  /** In the order of `mounts`; anew where the task had some. Fault `not-found` where a content is not among `contents`. */
  prepare(
    task: TaskId,
    mounts: readonly DocumentMount[],
    contents: readonly DocumentContent[],
  ): readonly PreparedMount[];
  /** Nothing where there is none. Its container must be gone, or it keeps what it has until then. */
  release(task: TaskId): void;
  /** Tasks that have some here. */
  held(): readonly TaskId[];
}

const flags = mountFlags.nosuid! | mountFlags.nodev!;
/** For the files' own blocks, which are whole pages. */
const pageBytes = 4096;

/** `run`: lost at reboot; `documents/` is made in it. */
export function taskDocuments(run: string): TaskDocuments {
  const root = join(run, 'documents');
  mkdirSync(root, { recursive: true, mode: 0o700 });

  const placeOf = (task: TaskId) => {
    if (!isId(task)) throw new Fault('invalid', `"${task}" is not a task id`);
    return join(root, task);
  };
  const release = (task: TaskId) => {
    const place = placeOf(task);
    if (!existsSync(place)) return;
    while (unmount(place));
    rmdirSync(place);
  };

  return {
    prepare(task, mounts, contents) {
      release(task);
      if (mounts.length === 0) return [];
      const place = placeOf(task);
      const byKey = new Map(contents.map((content) => [contentKey(content), content.data]));
      let bytes = pageBytes;
      for (const { data } of contents) bytes += data.length + pageBytes;
      mkdirSync(place, { mode: 0o700 });
      mountTmpfs(place, bytes * mounts.length);
      const prepared = mounts.map((wanted, index): PreparedMount => {
        const data = byKey.get(contentKey(wanted));
        if (!data) throw new Fault('not-found', `${wanted.type} ${wanted.name} is not on this node`);
        const source = join(place, String(index));
        writeFileSync(source, data.reveal(), { mode: 0o600, flag: 'wx' });
        chownSync(source, wanted.uid, wanted.gid);
        chmodSync(source, wanted.mode);
        const { target } = wanted;
        return { source, target, readOnly: true, propagation: '', type: 'bind', options: ['nosuid', 'nodev'] };
      });
      mount('none', place, '', mountFlags.remount! | mountFlags.ro! | flags);
      return prepared;
    },
    release,
    held: () => readdirSync(root).filter(isId) as TaskId[],
  };
}

/** Without swap where the kernel can (6.4): what is swapped out lies on a disk. */
function mountTmpfs(place: string, bytes: number): void {
  const options = `mode=0700,size=${bytes}`;
  try {
    mount('gantry-documents', place, 'tmpfs', flags, `${options},noswap`);
  } catch (error) {
    if (!(error instanceof CallError) || error.code !== 'EINVAL') throw error;
    mount('gantry-documents', place, 'tmpfs', flags, options);
  }
}
