/** Control groups, version 1 (also beside version 2, "hybrid") and version 2: a container's usage, limits and processes. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { Controls } from '#proto/model/controls.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { field, number, text, write } from './cgroup-files.ts';
import { type DeviceNumber, type Lacking, lacking1, lacking2, setLimits1, setLimits2 } from './cgroup-limits.ts';
import type { LiveSettings } from './runtime.ts';

export interface CgroupUsage {
  readonly cpuSeconds: number;
  /** Without the file cache that can be dropped. */
  readonly memoryBytes: number;
  /** 0: no limit. */
  readonly memoryLimitBytes: number;
  readonly pids: number;
}

/** `path` is the group's absolute name in every hierarchy, such as `/gantry/ID`. */
export interface Cgroups {
  readonly version: 1 | 2;
  readonly swapLimit: boolean;
  usage(path: string): CgroupUsage;
  /** Processes the kernel killed for want of memory. */
  oomKills(path: string): number;
  /** Faults: `exhausted` where more memory is used than the new limit, `unsupported` as `lacking` says, `invalid`. */
  setLimits(path: string, settings: LiveSettings, numberOf: DeviceNumber): void;
  /** Why this kernel cannot give these controls, and what to do; undefined: it can. */
  lacking(controls: Controls): Lacking | undefined;
  processes(path: string): readonly number[];
  /** The directory in which the group can be frozen, or else is counted. */
  freezer(path: string): string;
  /** Kills every process in it. */
  kill(path: string): void;
  /** Removes the group where it is empty; true when nothing is left. */
  remove(path: string): boolean;
  /** Moves a process into the group, made where it is missing; not out of a root group, where nothing limits it: a move may hold up every fork of the machine for 15 ms. */
  adopt(path: string, pid: number): Promise<void>;
}

/** Holds the groups of all containers, and those of what looks after them. */
export const cgroupParent = '/gantry';

/** The control group of a task, in every hierarchy. */
export function cgroupOf(id: TaskId, parent = cgroupParent): string {
  return `${parent}/${id}`;
}

type GroupsOf = (pid: number) => string;

/** Reads `/proc/self/mountinfo` (its text in `mountinfo`) to find the hierarchies; `groupsOf` reads `/proc/PID/cgroup`. Fault `precondition` where there is none. */
export function findCgroups(
  mountinfo: string = readFileSync('/proc/self/mountinfo', 'utf8'),
  groupsOf: GroupsOf = (pid) => readFileSync(`/proc/${pid}/cgroup`, 'utf8'),
): Cgroups {
  const controllers = new Map<string, string>();
  let unified: string | undefined;
  for (const line of mountinfo.split('\n')) {
    const [before, after] = line.split(' - ');
    const mountPoint = before?.split(' ')[4]?.replace(/\\040/g, ' ');
    const [type, , options = ''] = after?.split(' ') ?? [];
    if (!mountPoint) continue;
    if (type === 'cgroup2') unified ??= mountPoint;
    if (type !== 'cgroup') continue;
    for (const option of options.split(',')) if (!controllers.has(option)) controllers.set(option, mountPoint);
  }
  if (controllers.has('memory') || controllers.has('cpu')) return version1(controllers, unified, groupsOf);
  if (unified) return version2(unified, groupsOf);
  throw new Fault('precondition', 'no control groups are mounted here', { remedy: 'mount cgroup2 on /sys/fs/cgroup' });
}

/** `unified`: where version 2 is mounted beside it; systemd follows processes there. */
function version1(controllers: ReadonlyMap<string, string>, unified: string | undefined, groupsOf: GroupsOf): Cgroups {
  const at = (controller: string, path: string, file = '') => {
    const root = controllers.get(controller);
    if (!root) throw new Fault('unsupported', `the cgroup controller ${controller} is not mounted here`);
    return join(root, path, file);
  };
  const mounted = [...controllers].filter(([name]) => isController(name)).map(([, root]) => root);
  const hierarchies = [...new Set(unified ? [...mounted, unified] : mounted)];
  return {
    version: 1,
    swapLimit: existsSync(at('memory', '/', 'memory.memsw.limit_in_bytes')),
    usage(path) {
      const limit = number(at('memory', path, 'memory.limit_in_bytes'));
      return {
        cpuSeconds: number(at('cpuacct', path, 'cpuacct.usage')) / 1e9,
        memoryBytes: Math.max(
          0,
          number(at('memory', path, 'memory.usage_in_bytes')) -
            field(at('memory', path, 'memory.stat'), 'total_inactive_file'),
        ),
        // "None" is the largest multiple of the page size.
        memoryLimitBytes: limit > Number.MAX_SAFE_INTEGER ? 0 : limit,
        pids: number(at('pids', path, 'pids.current')),
      };
    },
    oomKills: (path) => field(at('memory', path, 'memory.oom_control'), 'oom_kill'),
    setLimits: (path, settings, numberOf) =>
      setLimits1(
        { has: (name) => controllers.has(name), file: (name, file) => at(name, path, file) },
        settings,
        numberOf,
      ),
    lacking: (controls) =>
      lacking1((controller) => (controllers.has(controller) ? at(controller, '/') : undefined), controls),
    processes: (path) => processesIn(at('pids', path)),
    freezer: (path) => at(controllers.has('freezer') ? 'freezer' : 'pids', path),
    kill(path) {
      for (const pid of processesIn(at('pids', path))) killQuietly(pid);
    },
    remove: (path) => hierarchies.map((root) => removeTree(join(root, path))).every((gone) => gone),
    async adopt(path, pid) {
      const limited = limitedIn(groupsOf(pid)).map((name) => (name === '' ? unified : controllers.get(name)));
      for (const root of hierarchies.filter((one) => limited.includes(one))) {
        makeGroup(root, path);
        await writeFile(join(root, path, 'cgroup.procs'), String(pid));
      }
    },
  };
}

function isController(option: string): boolean {
  return (
    !['rw', 'ro', 'xattr', 'clone_children', 'noprefix', 'favordynmods'].includes(option) &&
    !option.startsWith('release_agent=')
  );
}

/** The controllers in whose trees a process is in a group below the root, out of `/proc/PID/cgroup`; '' for version 2. */
function limitedIn(groups: string): string[] {
  const lines = groups.split('\n').map((line) => /^\d+:([^:]*):(.*)$/.exec(line));
  return lines.flatMap((line) => (line && line[2] !== '/' ? line[1]!.split(',') : []));
}

function version2(root: string, groupsOf: GroupsOf): Cgroups {
  const at = (path: string, file = '') => join(root, path, file);
  return {
    version: 2,
    swapLimit: true,
    usage(path) {
      const limit = text(at(path, 'memory.max'));
      return {
        cpuSeconds: field(at(path, 'cpu.stat'), 'usage_usec') / 1e6,
        memoryBytes: Math.max(0, number(at(path, 'memory.current')) - field(at(path, 'memory.stat'), 'inactive_file')),
        memoryLimitBytes: limit === 'max' ? 0 : Number(limit),
        pids: number(at(path, 'pids.current')),
      };
    },
    oomKills: (path) => field(at(path, 'memory.events'), 'oom_kill'),
    setLimits: (path, settings, numberOf) => setLimits2((file) => at(path, file), settings, numberOf),
    lacking: lacking2,
    processes: (path) => processesIn(at(path)),
    freezer: (path) => at(path),
    kill(path) {
      if (existsSync(at(path, 'cgroup.kill'))) write(at(path, 'cgroup.kill'), 1);
      else for (const pid of processesIn(at(path))) killQuietly(pid);
    },
    remove: (path) => removeTree(at(path)),
    async adopt(path, pid) {
      if (!limitedIn(groupsOf(pid)).includes('')) return;
      makeGroup(root, path);
      await writeFile(at(path, 'cgroup.procs'), String(pid));
    },
  };
}

function processesIn(directory: string): number[] {
  const found: number[] = [];
  const visit = (path: string) => {
    for (const line of readFileSync(join(path, 'cgroup.procs'), 'utf8').split('\n')) if (line) found.push(Number(line));
    for (const entry of readdirSync(path, { withFileTypes: true }))
      if (entry.isDirectory()) visit(join(path, entry.name));
  };
  try {
    visit(directory);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENODEV') throw error;
  }
  return found;
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

function removeTree(directory: string): boolean {
  try {
    for (const entry of readdirSync(directory, { withFileTypes: true })) {
      if (entry.isDirectory() && !removeTree(join(directory, entry.name))) return false;
    }
    rmdirSync(directory);
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') return true;
    if (code === 'EBUSY') return false;
    throw error;
  }
}

/** A new cpuset group of version 1 takes no process before it has processors and memory nodes: it copies its parent's. */
function makeGroup(root: string, path: string): void {
  let directory = root;
  for (const part of path.split('/').filter(Boolean)) {
    const parent = directory;
    directory = join(directory, part);
    if (existsSync(directory)) continue;
    mkdirSync(directory, { recursive: true, mode: 0o755 });
    for (const file of ['cpuset.cpus', 'cpuset.mems']) {
      if (!existsSync(join(directory, 'cpuset.cpu_exclusive'))) break;
      if (readFileSync(join(directory, file), 'utf8').trim() === '') {
        writeFileSync(join(directory, file), readFileSync(join(parent, file), 'utf8').trim());
      }
    }
  }
}
