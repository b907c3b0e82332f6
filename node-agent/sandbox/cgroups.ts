/** Cgroups are how a sandbox is found again: whatever it started is below `gantry-sandbox/<name>`, on version 1, hybrid and 2 alike. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';

/** One mounted cgroup tree of the machine. */
export interface Hierarchy {
  readonly version: 1 | 2;
  readonly mountPoint: string;
  /** For mount(8): "cpu,cpuacct" or "none,name=systemd"; empty for version 2. */
  readonly options: string;
}

const notControllers = /^(rw|ro|xattr|noprefix|clone_children|release_agent=.*|nsdelegate|memory_.*|favordynmods)$/;

/** The cgroup trees in the text of /proc/self/mountinfo, each once. */
export function hierarchiesIn(mountinfo: string): Hierarchy[] {
  const found = new Map<string, Hierarchy>();
  for (const line of mountinfo.split('\n')) {
    const [left, right] = line.split(' - ');
    const mountPoint = left?.split(' ')[4];
    const [type, , superOptions = ''] = right?.split(' ') ?? [];
    if (mountPoint === undefined || (type !== 'cgroup' && type !== 'cgroup2')) continue;
    const version = type === 'cgroup2' ? 2 : 1;
    const controllers = version === 2 ? [] : superOptions.split(',').filter((option) => !notControllers.test(option));
    const options = controllers.some((name) => name.startsWith('name=')) ? ['none', ...controllers] : controllers;
    const key = `${version} ${options.join(',')}`;
    if (!found.has(key)) found.set(key, { version, mountPoint, options: options.join(',') });
  }
  return [...found.values()];
}

/** The machine's cgroup trees. Throws `precondition` where there is none. */
export function machineHierarchies(): Hierarchy[] {
  const hierarchies = hierarchiesIn(readFileSync('/proc/self/mountinfo', 'utf8'));
  if (hierarchies.length > 0) return hierarchies;
  throw new Fault('precondition', 'no cgroup file system is mounted on this machine', {
    remedy: 'mount -t cgroup2 cgroup2 /sys/fs/cgroup',
  });
}

/** The trees a host of the sandbox gets to see: version 1 where the machine has its controllers there, else version 2. */
export function hostHierarchies(hierarchies: readonly Hierarchy[]): Hierarchy[] {
  const first = hierarchies.filter((one) => one.version === 1);
  return first.some((one) => !one.options.startsWith('none')) ? first : hierarchies.filter((one) => one.version === 2);
}

/** Makes the cgroup `path` (relative) in every tree, able to hold processes and to limit them; returns its directories. */
export function makeCgroup(hierarchies: readonly Hierarchy[], path: string): string[] {
  return hierarchies.map((one) => {
    for (let attempt = 1; ; attempt++) {
      try {
        return makeIn(one, path);
      } catch (error) {
        if (attempt === 5) throw error; // The `down` of the last other sandbox may take the parent away while we build on it.
      }
    }
  });
}

function makeIn(hierarchy: Hierarchy, path: string): string {
  let dir = hierarchy.mountPoint;
  for (const part of path.split('/')) {
    if (hierarchy.version === 2) passControllersOn(dir);
    const child = join(dir, part);
    if (!existsSync(child)) mkdirSync(child);
    if (hierarchy.options.split(',').includes('cpuset')) inheritCpuset(dir, child);
    dir = child;
  }
  return dir;
}

/** Gives the cgroup `path` processor time as if it were `times` others, where the machine is busy. */
export function weighCgroup(hierarchies: readonly Hierarchy[], path: string, times: number): void {
  for (const one of hierarchies) {
    const [file, usual] = one.version === 1 ? ['cpu.shares', 1_024] : ['cpu.weight', 100];
    const weight = join(one.mountPoint, path, file);
    if (existsSync(weight)) writeFileSync(weight, String(usual * times));
  }
}

/** The processes in the cgroup `path` and below it, as this process's pid namespace numbers them. */
export function processesIn(hierarchies: readonly Hierarchy[], path: string): number[] {
  const pids = new Set<number>();
  for (const one of hierarchies) {
    for (const dir of treeOf(join(one.mountPoint, path))) {
      for (const pid of readPids(dir)) if (pid > 0) pids.add(pid);
    }
  }
  return [...pids];
}

/** Whether any process sits in the cgroup `path` itself, in any tree. */
export function hasDirectProcesses(hierarchies: readonly Hierarchy[], path: string): boolean {
  return hierarchies.some((one) => readPids(join(one.mountPoint, path)).length > 0);
}

/** Removes the cgroup `path` and all below it; false where a process still holds one. */
export function removeCgroup(hierarchies: readonly Hierarchy[], path: string): boolean {
  let gone = true;
  for (const one of hierarchies) {
    for (const dir of treeOf(join(one.mountPoint, path)).reverse()) {
      try {
        rmdirSync(dir);
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') gone = false;
      }
    }
  }
  return gone;
}

/** A line of sh that puts the shell itself into cgroup directories. */
export function enterCgroupLine(dirs: readonly string[]): string {
  return dirs.map((dir) => `echo 0 > '${dir}/cgroup.procs'`).join(' && ');
}

/** The names of the cgroups right below `path`, of all trees. */
export function childrenOf(hierarchies: readonly Hierarchy[], path: string): string[] {
  const names = new Set<string>();
  for (const one of hierarchies) for (const name of subdirectories(join(one.mountPoint, path))) names.add(name);
  return [...names];
}

function treeOf(dir: string): string[] {
  if (!existsSync(dir)) return [];
  return [dir, ...subdirectories(dir).flatMap((name) => treeOf(join(dir, name)))];
}

function subdirectories(dir: string): string[] {
  try {
    return readdirSync(dir, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => entry.name);
  } catch {
    return []; // It went away while we looked.
  }
}

function readPids(dir: string): number[] {
  try {
    return readFileSync(join(dir, 'cgroup.procs'), 'utf8').split('\n').filter(Boolean).map(Number);
  } catch {
    return []; // It went away while we looked.
  }
}

function passControllersOn(dir: string): void {
  for (const controller of readFileSync(join(dir, 'cgroup.controllers'), 'utf8').trim().split(' ').filter(Boolean)) {
    try {
      writeFileSync(join(dir, 'cgroup.subtree_control'), `+${controller}`);
    } catch {
      // A controller that cannot be passed on here (rt processes, threaded parents) is one the hosts do without.
    }
  }
}

function inheritCpuset(parent: string, child: string): void {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (readFileSync(join(child, file), 'utf8').trim() !== '') continue;
    writeFileSync(join(child, file), readFileSync(join(parent, file), 'utf8'));
  }
}
