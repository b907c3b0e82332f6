/** Storage on one node: named volumes, anonymous ones, binds and tmpfs, made ready to be mounted into a container. */
import {
  closeSync,
  constants,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from 'node:fs';
import { rm } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import { isId, type TaskId } from '#proto/model/ids.ts';
import { emptyMount, type Mount } from '#proto/model/service.ts';
import { CallError, mount, mountFlags, openUnder, unmount } from '../runtime/libc.ts';
import { mountRootfs } from '../runtime/rootfs.ts';
import type { PreparedMount, RootfsMount } from '../runtime/runtime.ts';
import { runTool } from '../runtime/tool.ts';

export interface VolumeRequest {
  readonly task: TaskId;
  readonly mounts: readonly Mount[];
  /** `VOLUME`s of the image: an anonymous volume each, where nothing else is mounted. */
  readonly imageVolumes: readonly string[];
  /** Of the task: content found in it at a new volume's target is copied in. */
  readonly rootfs: readonly RootfsMount[];
  /** It may bind anything of the host. */
  readonly privileged: boolean;
}

export interface Volumes {
  /** In the order to be mounted; the same again for the same task. Faults: `invalid`, `not-found`, `precondition`, `exhausted`. */
  prepare(request: VolumeRequest): Promise<readonly PreparedMount[]>;
  /** Removes the task's anonymous volumes; nothing where there are none. Its container must be gone. */
  release(task: TaskId): Promise<void>;
  /** Tasks that hold something here. */
  held(): Promise<readonly TaskId[]>;
  /** Names of the named volumes. */
  list(): Promise<readonly string[]>;
  /** Deletes a named volume and its data. Fault `conflict` where a task held here uses it. */
  remove(name: string): Promise<void>;
}

export interface VolumesParts {
  /** The agent's data directory: `volumes/` and `task-volumes/` are made in it. */
  readonly data: string;
  /** Directories that only privileged containers may bind, or what holds them: the agent's own, and its engines'. */
  readonly forbidden: readonly string[];
}

const namePattern = /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/;
const propagations = ['', 'rprivate', 'private', 'rshared', 'shared', 'rslave', 'slave'];
const pathOnly = 0o10000000;
const safe = ['nosuid', 'nodev'];

export function hostVolumes(parts: VolumesParts): Volumes {
  const named = join(parts.data, 'volumes');
  const ofTasks = join(parts.data, 'task-volumes');
  /** What is being deleted: never seen half of it. */
  const going = join(parts.data, 'volumes-going');
  for (const path of [named, ofTasks, going]) mkdirSync(path, { recursive: true, mode: 0o700 });
  const turns = new Map<string, Promise<unknown>>();

  const taskDirectory = (task: TaskId) => {
    if (!isId(task)) throw new Fault('invalid', `"${task}" is not a task id`);
    return join(ofTasks, task);
  };

  const prepareVolume = async (request: VolumeRequest, wanted: Mount, index: number): Promise<PreparedMount> => {
    const own = taskDirectory(request.task);
    if (wanted.source) checkName(wanted.source);
    const volume = wanted.source ? join(named, wanted.source) : join(own, 'anonymous', String(index));
    if (wanted.source) {
      mkdirSync(join(own, 'uses'), { recursive: true, mode: 0o700 });
      writeFileSync(join(own, 'uses', wanted.source), '');
    }
    await inTurn(turns, volume, () => fill(volume, wanted, request, join(own, 'rootfs')));
    const data = join(volume, '_data');
    const source = wanted.subpath ? bindSubpath(data, wanted, join(own, 'subpaths', String(index))) : data;
    return prepared(wanted, source, safe);
  };

  const prepareOne = async (request: VolumeRequest, wanted: Mount, index: number): Promise<PreparedMount> => {
    if (!posix.isAbsolute(wanted.target)) {
      throw new Fault('invalid', `the mount target "${wanted.target}" is not absolute`, { remedy: 'begin it with /' });
    }
    switch (wanted.type) {
      case 'tmpfs':
        return {
          source: 'tmpfs',
          target: wanted.target,
          readOnly: wanted.readOnly,
          propagation: '',
          type: 'tmpfs',
          options: tmpfsOptions(wanted),
        };
      case 'bind':
        return prepared(
          wanted,
          bindSource(wanted, request.privileged ? [] : parts.forbidden),
          request.privileged ? [] : safe,
        );
      case 'volume':
        return prepareVolume(request, wanted, index);
    }
  };

  return {
    async prepare(request) {
      const wanted = [...request.mounts, ...anonymousOf(request)];
      const made: PreparedMount[] = [];
      for (const [index, one] of wanted.entries()) made.push(await prepareOne(request, one, index));
      return made;
    },
    async release(task) {
      const own = taskDirectory(task);
      if (!existsSync(own)) return;
      const mounted = [
        join(own, 'rootfs'),
        ...entries(join(own, 'subpaths')).map((name) => join(own, 'subpaths', name)),
      ];
      for (const path of mounted) while (unmount(path));
      await rm(own, { recursive: true, force: true });
    },
    held: async () => entries(ofTasks).filter(isId) as TaskId[],
    list: async () => entries(named).filter((name) => namePattern.test(name) && existsSync(join(named, name, '_data'))),
    async remove(name) {
      checkName(name);
      const user = entries(ofTasks).find((task) => existsSync(join(ofTasks, task, 'uses', name)));
      if (user)
        throw new Fault('conflict', `volume "${name}" is in use by task ${user}`, {
          remedy: 'remove its service first',
        });
      await inTurn(turns, join(named, name), async () => {
        const last = join(going, name);
        await rm(last, { recursive: true, force: true });
        if (existsSync(join(named, name))) renameSync(join(named, name), last);
        await rm(last, { recursive: true, force: true });
      });
    },
  };
}

function anonymousOf(request: VolumeRequest): Mount[] {
  const clean = (path: string) => posix.normalize(`/${path}/`).replace(/(.)\/+$/, '$1');
  const taken = new Set(request.mounts.map(({ target }) => clean(target)));
  const targets = [...new Set(request.imageVolumes.map(clean))].filter(
    (target) => !taken.has(target) && target !== '/',
  );
  return targets.map((target) => emptyMount('volume', '', target));
}

/** Makes the volume where it is missing, with what the image has at its target; a half-made one is never seen. */
async function fill(volume: string, wanted: Mount, request: VolumeRequest, scratch: string): Promise<void> {
  const data = join(volume, '_data');
  const fresh = !existsSync(data);
  if (!fresh && (wanted.noCopy || readdirSync(data).length > 0)) return;
  mkdirSync(volume, { recursive: true, mode: 0o700 });
  // One that is there may be mounted in another container: it keeps its inode.
  const target = fresh ? join(volume, '_data.new') : data;
  if (fresh) {
    await rm(target, { recursive: true, force: true });
    mkdirSync(target, { mode: 0o755 });
  }
  if (!wanted.noCopy && request.rootfs.length > 0) await copyUp(request.rootfs, wanted.target, target, scratch);
  if (fresh) renameSync(target, data);
}

async function copyUp(rootfs: readonly RootfsMount[], path: string, target: string, scratch: string): Promise<void> {
  mkdirSync(scratch, { recursive: true, mode: 0o700 });
  while (unmount(scratch));
  mountRootfs(rootfs, scratch);
  try {
    const source = openDirectoryInRoot(scratch, path);
    if (source === undefined) return;
    try {
      // By descriptor: the path cannot come to mean another place between the look and the copy.
      const { exitCode, output } = await runTool('/bin/cp', ['-aT', `/proc/${process.pid}/fd/${source}/.`, target]);
      if (exitCode !== 0)
        throw new Fault('exhausted', `the image's content at ${path} could not be copied into the volume: ${output}`, {
          remedy: 'free space on the disk of the agent',
        });
    } finally {
      closeSync(source);
    }
  } finally {
    unmount(scratch);
  }
}

/** Undefined where the image has no directory there. */
function openDirectoryInRoot(rootPath: string, path: string): number | undefined {
  const root = openSync(rootPath, constants.O_RDONLY | constants.O_DIRECTORY);
  try {
    return openUnder(root, path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (error) {
    if (error instanceof CallError && ['ENOENT', 'ENOTDIR', 'ELOOP'].includes(error.code)) return undefined;
    throw error;
  } finally {
    closeSync(root);
  }
}

/** Binds what the subpath is now to a place only we can change (CVE-2021-25741): a symlink put there later leads nowhere. */
function bindSubpath(data: string, wanted: Mount, place: string): string {
  const root = openSync(data, constants.O_RDONLY | constants.O_DIRECTORY);
  let fd = -1;
  try {
    fd = openUnder(root, wanted.subpath, pathOnly);
    const directory = fstatSync(fd).isDirectory();
    mkdirSync(join(place, '..'), { recursive: true, mode: 0o700 });
    while (unmount(place));
    if (directory) mkdirSync(place, { recursive: true, mode: 0o700 });
    else writeFileSync(place, '', { mode: 0o600 });
    mount(`/proc/self/fd/${fd}`, place, '', mountFlags.bind!);
    mount('none', place, '', mountFlags.private!);
    return place;
  } catch (error) {
    if (!(error instanceof CallError)) throw error;
    throw new Fault('precondition', `volume "${wanted.source}" has no "${wanted.subpath}": ${error.message}`, {
      cause: error,
      remedy: 'make that directory in the volume first',
    });
  } finally {
    if (fd >= 0) closeSync(fd);
    closeSync(root);
  }
}

/** The source with its symlinks resolved, so that it cannot change its meaning before it is mounted. */
function bindSource(wanted: Mount, forbidden: readonly string[]): string {
  const { source } = wanted;
  if (!posix.isAbsolute(source)) {
    throw new Fault('invalid', `the bind source "${source}" is not an absolute path`, { remedy: 'write it in full' });
  }
  const refuse = (path: string) => {
    const hit = forbidden.find(
      (own) => path === own || path.startsWith(`${own}/`) || own.startsWith(path === '/' ? '/' : `${path}/`),
    );
    if (!hit) return;
    throw new Fault('forbidden', `${source} may not be bound into a container: ${hit} belongs to the node agent`, {
      remedy: 'bind a narrower directory, or use a named volume',
    });
  };
  if (!existsSync(source)) {
    if (!wanted.createHostPath) {
      throw new Fault('not-found', `the bind source ${source} does not exist on this node`, {
        remedy: 'create it, or set `bind: { create_host_path: true }`',
      });
    }
    refuse(posix.normalize(source));
    mkdirSync(source, { recursive: true, mode: 0o755 });
  }
  const real = realpathSync(source);
  refuse(real);
  return real;
}

function tmpfsOptions(wanted: Mount): string[] {
  return [
    ...(wanted.tmpfsSizeBytes > 0 ? [`size=${wanted.tmpfsSizeBytes}`] : []),
    `mode=${(wanted.tmpfsMode || 0o1777).toString(8)}`,
    ...wanted.tmpfsOptions,
  ];
}

function prepared(wanted: Mount, source: string, options: readonly string[]): PreparedMount {
  if (!propagations.includes(wanted.propagation)) {
    throw new Fault('invalid', `"${wanted.propagation}" is not a kind of propagation`, {
      remedy: `use one of ${propagations.slice(1).join(', ')}`,
    });
  }
  return {
    source,
    target: wanted.target,
    readOnly: wanted.readOnly,
    propagation: wanted.propagation,
    type: 'bind',
    options,
  };
}

function checkName(name: string): void {
  if (namePattern.test(name) && name !== '.' && name !== '..') return;
  throw new Fault('invalid', `"${name}" cannot name a volume`, { remedy: 'use letters, digits, "_", "." and "-"' });
}

function entries(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).sort() : [];
}

async function inTurn<T>(turns: Map<string, Promise<unknown>>, key: string, action: () => Promise<T>): Promise<T> {
  const turn = (turns.get(key) ?? Promise.resolve()).then(action, action);
  turns.set(key, turn);
  try {
    return await turn;
  } finally {
    if (turns.get(key) === turn) turns.delete(key);
  }
}
