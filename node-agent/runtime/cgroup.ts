/** Control groups, version 1 (also beside version 2, "hybrid") and version 2: a container's usage, limits and processes. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { Resources } from '#proto/model/resources.ts';
import { cpuQuota, defaultPids } from './oci-spec.ts';

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
  /** Fault `exhausted` where more memory is used than the new limit. */
  setLimits(path: string, limits: Resources): void;
  processes(path: string): readonly number[];
  /** Kills every process in it. */
  kill(path: string): void;
  /** Removes the group where it is empty; true when nothing is left. */
  remove(path: string): boolean;
  /** Moves a process into the group, made where it is missing; not out of a root group, where nothing limits it: a move may hold up every fork of the machine for 15 ms. */
  adopt(path: string, pid: number): Promise<void>;
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
    setLimits(path, limits) {
      const { quotaUs, periodUs } = cpuQuota(limits.cpuMillis);
      write(at('cpu', path, 'cpu.cfs_period_us'), periodUs);
      write(at('cpu', path, 'cpu.cfs_quota_us'), limits.cpuMillis > 0 ? quotaUs : -1);
      write(at('pids', path, 'pids.max'), limits.pids > 0 ? limits.pids : defaultPids);
      const bytes = limits.memoryBytes > 0 ? limits.memoryBytes : -1;
      const files = ['memory.memsw.limit_in_bytes', 'memory.limit_in_bytes']
        .map((file) => at('memory', path, file))
        .filter((file) => existsSync(file));
      // The limit with swap may never be below the one without: raise it first, lower it last.
      const current = number(at('memory', path, 'memory.limit_in_bytes'));
      if (bytes >= 0 && bytes < current) files.reverse();
      for (const file of files) write(file, bytes);
    },
    processes: (path) => processesIn(at('pids', path)),
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
    setLimits(path, limits) {
      const { quotaUs, periodUs } = cpuQuota(limits.cpuMillis);
      write(at(path, 'cpu.max'), limits.cpuMillis > 0 ? `${quotaUs} ${periodUs}` : `max ${periodUs}`);
      write(at(path, 'pids.max'), limits.pids > 0 ? limits.pids : defaultPids);
      if (limits.memoryBytes > 0 && number(at(path, 'memory.current')) > limits.memoryBytes)
        throw tooLow(limits.memoryBytes);
      write(at(path, 'memory.max'), limits.memoryBytes > 0 ? limits.memoryBytes : 'max');
      if (existsSync(at(path, 'memory.swap.max')))
        write(at(path, 'memory.swap.max'), limits.memoryBytes > 0 ? 0 : 'max');
    },
    processes: (path) => processesIn(at(path)),
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

function tooLow(bytes: number, cause?: unknown): Fault {
  return new Fault('exhausted', `more memory is in use than the new limit of ${bytes} bytes`, {
    cause,
    remedy: 'choose a higher limit, or restart the service with it',
  });
}

function write(file: string, value: number | string): void {
  try {
    writeFileSync(file, String(value));
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EBUSY') throw tooLow(Number(value), error);
    if (code === 'ENOENT')
      throw new Fault('not-found', `${file} does not exist: the container has ended`, { cause: error });
    throw new Fault('invalid', `the kernel refused ${value} for ${file}`, { cause: error });
  }
}

function text(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ENODEV') throw error;
    throw new Fault('not-found', `${file} does not exist: the container has ended`, { cause: error });
  }
}

function number(file: string): number {
  return Number(text(file));
}

/** The number after `name` in a file of `name number` lines; 0 where there is none. */
function field(file: string, name: string): number {
  for (const line of text(file).split('\n')) {
    const [key, value] = line.split(' ');
    if (key === name) return Number(value);
  }
  return 0;
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
