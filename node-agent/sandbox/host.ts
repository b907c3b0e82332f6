/** One host of a sandbox while it has power: its processes, its cable, and how both end. Lives in the keeper. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, closeSync, mkdirSync, openSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type Random, systemRandom } from '#proto/kernel/random.ts';
import {
  enterCgroupLine,
  type Hierarchy,
  hasDirectProcesses,
  hostHierarchies,
  makeCgroup,
  processesIn,
  removeCgroup,
} from './cgroups.ts';
import { cardLines, ipBatch } from './command.ts';
import { agentData, bootScript, type HostPlan, hostFiles, settingsFile } from './host-script.ts';
import { codeDir, hostLayout, type Layout, roleOf } from './layout.ts';
import { hardwareAddressOf, placeOf, type Topology } from './topology.ts';

/** What every host of one sandbox shares. */
export interface HostParts {
  readonly layout: Layout;
  readonly hierarchies: readonly Hierarchy[];
  /** The cgroup of the keeper itself. */
  readonly keeperCgroup: string;
  /** A process in the network namespace of the virtual switch. */
  readonly switchPid: number;
  readonly compileCache: string;
  readonly bare: boolean;
  readonly topology: Topology;
  readonly managers: readonly string[];
  /** GANTRY_… variables of a host's agent, or of its control plane. */
  readonly settings: (host: string) => Readonly<Record<string, string>>;
  readonly clock: Clock;
}

/** A host that was started. `ended` resolves when its last process is gone. */
export interface RunningHost {
  readonly name: string;
  readonly ended: Promise<void>;
  isRunning(): boolean;
  isPlugged(): boolean;
  setCable(plugged: boolean): Promise<void>;
  /** SIGKILL to its agent, which the host starts again. */
  killAgent(): void;
  /** SIGKILL to its init; every process in its namespaces dies with it. */
  killInit(): Promise<void>;
}

/** Boots a host with the disk it had: new namespaces, a new boot id, an empty /run, its cable plugged in. */
export async function startHost(parts: HostParts, name: string): Promise<RunningHost> {
  const cgroup = `gantry-sandbox/${parts.layout.name}/${name}`;
  await clearCgroup(parts, cgroup, name);
  const dirs = makeCgroup(parts.hierarchies, cgroup);
  prepareDisk(parts, name);
  const child = launch(parts, name, dirs);
  const pid = child.pid;
  if (pid === undefined) throw new Fault('internal', `cannot start unshare for host ${name}`);
  let running = true;
  let plugged = true;
  const ended = new Promise<void>((resolve) => {
    child.on('exit', () => {
      running = false;
      resolve();
    });
    child.on('error', () => {
      running = false;
      resolve();
    });
  });
  await untilNamespaced(parts, name, pid, () => running);
  if (hostHierarchies(parts.hierarchies).some((one) => one.version === 2)) await leaveRoot(parts, pid, cgroup);
  await plugIn(parts, name, pid);
  child.stdin?.write('go\n');
  return {
    name,
    ended,
    isRunning: () => running,
    isPlugged: () => plugged,
    async setCable(to) {
      await ipBatch(parts.switchPid, [`link set ${name} ${to ? 'up' : 'down'}`]);
      plugged = to;
    },
    killAgent() {
      for (const one of processesIn(parts.hierarchies, cgroup)) if (isAgent(one)) killQuietly(one);
    },
    async killInit() {
      if (!running) return;
      const init = childOf(pid);
      if (init === undefined) child.kill('SIGKILL');
      else process.kill(init, 'SIGKILL');
      await ended;
    },
  };
}

function launch(parts: HostParts, name: string, cgroupDirs: readonly string[]): ChildProcess {
  const disk = hostLayout(parts.layout, name);
  const log = openSync(join(disk.log, 'boot.log'), 'a');
  const unshare = 'exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child --propagation private';
  const line = `${enterCgroupLine(cgroupDirs)} && ${unshare} sh '${join(disk.run, 'sandbox', 'boot.sh')}'`;
  const child = spawn('sh', ['-c', line], { stdio: ['pipe', log, log] });
  child.stdin?.on('error', () => {}); // It may die before it reads; `ended` tells.
  closeSync(log);
  return child;
}

function prepareDisk(parts: HostParts, name: string): void {
  const disk = hostLayout(parts.layout, name);
  rmSync(disk.run, { recursive: true, force: true });
  for (const dir of [disk.run, disk.gantry, disk.containerd, disk.log, disk.etc, `${disk.etc}-work`]) {
    mkdirSync(dir, { recursive: true });
  }
  chmodSync(disk.gantry, 0o755);
  writeFileSync(disk.bootIdFile, `${newBootId(systemRandom)}\n`);
  const plan: HostPlan = {
    name,
    role: roleOf(name),
    managers: parts.managers,
    layout: disk,
    hierarchies: hostHierarchies(parts.hierarchies),
    nodeProgram: process.execPath,
    codeDir,
    compileCache: parts.compileCache,
    bare: parts.bare,
    topology: parts.topology,
  };
  const dir = join(disk.run, 'sandbox');
  mkdirSync(dir);
  writeFileSync(join(dir, 'boot.sh'), bootScript(plan));
  for (const [file, text] of Object.entries(hostFiles(plan))) writeFileSync(join(dir, file), text);
  writeSettings(parts, name);
}

/** They count when what they are for is started the next time. */
export function writeSettings({ layout, settings }: Pick<HostParts, 'layout' | 'settings'>, name: string): void {
  writeFileSync(join(hostLayout(layout, name).run, 'sandbox', 'settings.env'), settingsFile(settings(name)));
}

/** In the kernel's own form, a UUID of version 4. */
function newBootId(random: Random): string {
  const bytes = random.bytes(16);
  bytes[6] = ((bytes[6] as number) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] as number) & 0x3f) | 0x80;
  return Buffer.from(bytes)
    .toString('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** What the previous life of the host may have left: containers' cgroups, and processes that somebody put there by hand. */
async function clearCgroup(parts: HostParts, cgroup: string, name: string): Promise<void> {
  const deadline = parts.clock.monotonic() + 5_000;
  for (;;) {
    for (const pid of processesIn(parts.hierarchies, cgroup)) killQuietly(pid);
    if (removeCgroup(parts.hierarchies, cgroup)) return;
    if (parts.clock.monotonic() > deadline) {
      throw new Fault('conflict', `processes of the last life of host ${name} do not end`, {
        remedy: 'gantry sandbox down',
      });
    }
    await parts.clock.sleep(10);
  }
}

/** Waits until unshare has made the namespaces and forked the host's init. */
async function untilNamespaced(parts: HostParts, name: string, pid: number, alive: () => boolean): Promise<void> {
  const deadline = parts.clock.monotonic() + 10_000;
  const own = readlinkSync('/proc/self/ns/net');
  while (alive() && parts.clock.monotonic() < deadline) {
    if (networkOf(pid) !== own && childOf(pid) !== undefined) return;
    await parts.clock.sleep(5);
  }
  throw new Fault(
    'unavailable',
    `host ${name} did not boot: ${lastLines(join(hostLayout(parts.layout, name).log, 'boot.log'))}`,
    {
      remedy: 'namespaces and cgroups need root on the machine itself',
    },
  );
}

/** Version 2 lets a cgroup pass controllers on only when no process sits in it: ours leaves, and the host's script moves itself. */
async function leaveRoot(parts: HostParts, pid: number, cgroup: string): Promise<void> {
  for (const dir of makeCgroup(parts.hierarchies, parts.keeperCgroup))
    writeFileSync(join(dir, 'cgroup.procs'), String(pid));
  const deadline = parts.clock.monotonic() + 5_000;
  while (hasDirectProcesses(parts.hierarchies, cgroup) && parts.clock.monotonic() < deadline)
    await parts.clock.sleep(5);
  makeCgroup(parts.hierarchies, `${cgroup}/init`);
}

async function plugIn({ switchPid, topology }: HostParts, name: string, pid: number): Promise<void> {
  const { bridge, addresses, routes } = placeOf(topology, name);
  await ipBatch(switchPid, [`link delete ${name}`]).catch(() => {}); // The last life's cable, if the kernel still holds it.
  await ipBatch(switchPid, [
    `link add ${name} type veth peer name eth0 address ${hardwareAddressOf(name)} netns ${pid}`,
    `link set ${name} master ${bridge} up`,
  ]);
  await ipBatch(pid, cardLines('eth0', addresses, routes));
}

function networkOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return undefined;
  }
}

function childOf(pid: number): number | undefined {
  try {
    const first = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')[0];
    return first ? Number(first) : undefined;
  } catch {
    return undefined;
  }
}

/** Others may run the same program with a data directory of their own. */
function isAgent(pid: number): boolean {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
    return words.includes('--control-plane') && words.includes(agentData);
  } catch {
    return false;
  }
}

function killQuietly(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It ended by itself.
  }
}

/** What the last line of a JSON log says, without its fields; the line itself where it is none. */
export function lastWord(file: string): string {
  const line = lastLines(file, 1);
  try {
    const { message, error } = JSON.parse(line) as { message: string; error?: string };
    return error === undefined ? message : `${message}: ${error}`;
  } catch {
    return line;
  }
}

/** The end of a log, for an error message. */
export function lastLines(file: string, count = 5): string {
  try {
    return readFileSync(file, 'utf8').trimEnd().split('\n').slice(-count).join(' | ') || '(its log is empty)';
  } catch {
    return '(it wrote no log)';
  }
}
