/** The machine as the runtime uses it: where things are, which tools it has, what it can give, and how remains are removed. */
import { closeSync, existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { constants as osConstants } from 'node:os';
import { join } from 'node:path';
import { readBootId } from '#proto/kernel/boot-id.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { isId, type TaskId } from '#proto/model/ids.ts';
import { checkApparmor } from './apparmor.ts';
import { type BundleRecord, bundleRootfs, hadOom, readPid } from './bundle.ts';
import { capabilitiesOfMask } from './capabilities.ts';
import { type Cgroups, cgroupOf, cgroupParent, findCgroups } from './cgroup.ts';
import { conmonFiles } from './conmon.ts';
import { deviceNumber, hostDevices } from './devices.ts';
import { pidfdOpen, pidfdSignal } from './libc.ts';
import { type OciSpec, ociSpec } from './oci-spec.ts';
import { commandOf, startTicksOf } from './processes.ts';
import { checkRootfs, readInRoot, setTmpfsModes } from './rootfs.ts';
import type { ContainerRequest } from './runtime.ts';
import { ownSeccompProfile, seccompProfiles } from './seccomp.ts';
import { runTool } from './tool.ts';
import { resolveUser, withGroups } from './user.ts';

export interface ConmonRuntimeParts {
  readonly clock: Clock;
  readonly log: Log;
  /** The agent's data directory: `containers/` and `exits/` are made in it. */
  readonly root: string;
  /** Lost at reboot, as the processes are: the OCI runtimes keep their state in it. */
  readonly run: string;
  /** Absolute paths; Debian's where absent. */
  readonly conmonPath?: string;
  readonly runtimePaths?: Readonly<Record<string, string>>;
  readonly initPath?: string;
  readonly seccompPath?: string;
  /** The cgroup that holds all containers; `/gantry` where absent. */
  readonly cgroupParent?: string;
  readonly cgroups?: Cgroups;
  /** Containers being created at once. */
  readonly parallel?: number;
}

const debian = {
  conmonPath: '/usr/bin/conmon',
  runtimePaths: { runc: '/usr/sbin/runc', crun: '/usr/bin/crun' } as Readonly<Record<string, string>>,
  initPath: '/usr/bin/tini-static',
  seccompPath: '/usr/share/containers/seccomp.json',
  cgroupParent,
};

const killPatienceMs = 10_000;
/** For one run of an OCI runtime, which takes some ms: a task waits no longer for one that hangs. */
const toolTimeoutMs = { start: 60_000, delete: 20_000, version: 20_000 };

export class ContainerHost {
  readonly settings: Required<ConmonRuntimeParts>;
  readonly containers: string;
  readonly exits: string;
  readonly bootId: string;
  readonly capabilities: readonly string[];
  readonly #maxOpenFiles: number;
  readonly #seccomp: ReturnType<typeof seccompProfiles>;

  /** Makes the directories. Fault `precondition` where a tool is not installed. */
  constructor(parts: ConmonRuntimeParts) {
    this.settings = { ...debian, parallel: 8, ...parts, cgroups: parts.cgroups ?? findCgroups() };
    for (const path of [this.settings.conmonPath, this.settings.seccompPath]) {
      if (existsSync(path)) continue;
      throw new Fault('precondition', `${path} is missing`, {
        remedy: 'apt-get install conmon runc golang-github-containers-common',
      });
    }
    this.containers = join(parts.root, 'containers');
    this.exits = join(parts.root, 'exits');
    for (const path of [this.containers, this.exits, join(parts.run, 'oci')]) {
      mkdirSync(path, { recursive: true, mode: 0o700 });
    }
    this.bootId = readBootId();
    const status = readFileSync('/proc/self/status', 'utf8');
    this.capabilities = capabilitiesOfMask(/^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0');
    const limits = readFileSync('/proc/self/limits', 'utf8');
    this.#maxOpenFiles = Math.min(Number(/^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1] ?? 1024), 1_048_576);
    this.#seccomp = seccompProfiles(readFileSync(this.settings.seccompPath, 'utf8'), process.arch);
  }

  bundle(id: TaskId): string {
    if (!isId(id)) throw new Fault('invalid', `"${id}" is not a task id`);
    return join(this.containers, id);
  }

  cgroup(id: TaskId): string {
    return cgroupOf(id, this.settings.cgroupParent);
  }

  stateRoot(runtime: string): string {
    return join(this.settings.run, 'oci', runtime);
  }

  runtimePath(name: string): string {
    const path = this.settings.runtimePaths[name || 'runc'];
    if (path && existsSync(path)) return path;
    throw new Fault('unsupported', `this host has no runtime "${name}"`, {
      remedy: `it has ${Object.keys(this.settings.runtimePaths).join(', ')}; install it, or change \`runtime:\``,
    });
  }

  /** Fault `timeout`. */
  oci(runtime: string, command: 'start' | 'delete', ...args: readonly string[]) {
    const line = ['--root', this.stateRoot(runtime), command, ...args];
    return runTool(this.runtimePath(runtime), line, this.#deadline(command));
  }

  #deadline(command: keyof typeof toolTimeoutMs) {
    return { clock: this.settings.clock, timeoutMs: toolTimeoutMs[command] };
  }

  /** True where the runtime did it; what it said, or that it never ended, is in the log. */
  async #deleted(runtime: string, id: TaskId, ...flags: readonly string[]): Promise<boolean> {
    let why: string;
    try {
      const { exitCode, output } = await this.oci(runtime, 'delete', ...flags, id);
      if (exitCode === 0) return true;
      why = output;
    } catch (error) {
      if (!isFault(error, 'timeout')) throw error;
      why = error.message;
    }
    this.settings.log.warn('the runtime could not delete a container: its remains are removed by hand', {
      task: id,
      why,
    });
    return false;
  }

  /** Faults as `ociSpec`. The root filesystem must be mounted. */
  spec(request: ContainerRequest): OciSpec {
    const { id, container } = request;
    const rootfsPath = bundleRootfs(this.bundle(id));
    if (container.init && !existsSync(this.settings.initPath)) {
      throw new Fault('precondition', `init: ${this.settings.initPath} is missing on this host`, {
        remedy: 'apt-get install tini',
      });
    }
    const lacking = this.settings.cgroups.lacking(request.controls);
    if (lacking) throw new Fault('unsupported', lacking.message, { remedy: lacking.remedy });
    checkApparmor(container.apparmorProfile);
    checkRootfs(rootfsPath);
    setTmpfsModes(rootfsPath, request.mounts);
    const groups = readInRoot(rootfsPath, '/etc/group');
    const user = resolveUser(container.user || request.image.user, readInRoot(rootfsPath, '/etc/passwd'), groups);
    const { seccompProfile } = container;
    return ociSpec(request, {
      rootfsPath,
      cgroupPath: this.cgroup(id),
      user: withGroups(user, container.groupAdd, groups),
      capabilitiesOfHost: this.capabilities,
      seccomp:
        seccompProfile === ''
          ? this.#seccomp
          : (capabilities) => ownSeccompProfile(seccompProfile, process.arch, capabilities),
      initPath: this.settings.initPath,
      swapLimit: this.settings.cgroups.swapLimit,
      maxOpenFiles: this.#maxOpenFiles,
      devices: hostDevices(container.devices),
      deviceNumber,
    });
  }

  /** A conmon that never answered. */
  killStray(id: TaskId): void {
    const pid = readPid(this.bundle(id), conmonFiles.conmonPid) ?? 0;
    const pidfd = pid > 0 ? pidfdOpen(pid) : undefined;
    if (pidfd === undefined) return;
    if (commandOf(pid).includes(id)) pidfdSignal(pidfd, osConstants.signals.SIGKILL);
    closeSync(pidfd);
  }

  async removeFromRuntime(runtime: string, id: TaskId): Promise<void> {
    const state = join(this.stateRoot(runtime), id);
    const cgroup = this.cgroup(id);
    if (existsSync(state) && !(await this.#deleted(runtime, id))) {
      await this.#deleted(runtime, id, '--force');
      rmSync(state, { recursive: true, force: true });
    }
    this.settings.cgroups.kill(cgroup);
    const deadline = this.settings.clock.monotonic() + killPatienceMs;
    while (!this.settings.cgroups.remove(cgroup)) {
      if (this.settings.clock.monotonic() > deadline) {
        throw new Fault('unavailable', `processes of task ${id} do not end`, {
          remedy: `they are in uninterruptible sleep: see cgroup ${cgroup}`,
        });
      }
      await this.settings.clock.sleep(5);
    }
  }

  /** The agent ended between conmon's start and its answer: the files conmon wrote say who is there. */
  completed(record: BundleRecord): BundleRecord {
    const bundle = this.bundle(record.id);
    const pid = readPid(bundle, conmonFiles.pid) ?? 0;
    const conmonPid = readPid(bundle, conmonFiles.conmonPid) ?? 0;
    const ours = this.settings.cgroups.processes(this.cgroup(record.id)).includes(pid);
    const conmonIsOurs = conmonPid > 0 && commandOf(conmonPid).includes(record.id);
    return {
      ...record,
      pid: ours ? pid : 0,
      startTicks: ours ? (startTicksOf(pid) ?? 0) : 0,
      conmonPid: conmonIsOurs ? conmonPid : 0,
      conmonStartTicks: conmonIsOurs ? (startTicksOf(conmonPid) ?? 0) : 0,
    };
  }

  /** Out of the agent's cgroup. Not waited for: each move costs the kernel a grace period, and nothing depends on it. */
  async moveConmon(id: TaskId, pid: number): Promise<void> {
    // 0 would move the agent itself.
    if (pid <= 0) return;
    try {
      await this.settings.cgroups.adopt(`${this.settings.cgroupParent}/conmon`, pid);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return;
      this.settings.log.warn('conmon stays in the cgroup of the agent', { task: id, error });
    }
  }

  oomKilled(id: TaskId): boolean {
    try {
      return this.settings.cgroups.oomKills(this.cgroup(id)) > 0 || hadOom(this.bundle(id));
    } catch (error) {
      if (isFault(error, 'not-found')) return hadOom(this.bundle(id));
      throw error;
    }
  }

  async versions(): Promise<Readonly<Record<string, string>>> {
    const found: Record<string, string> = {};
    const tools = { conmon: this.settings.conmonPath, ...this.settings.runtimePaths };
    for (const [name, path] of Object.entries(tools)) {
      if (!existsSync(path)) continue;
      const { output } = await runTool(path, ['--version'], this.#deadline('version'));
      found[name] = /version:?\s+(\S+)/.exec(output)?.[1] ?? 'unknown';
    }
    return found;
  }
}
