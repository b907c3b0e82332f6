/** The runtime on conmon and an OCI runtime: containers that outlive the agent, and are found again by it. */
import {
  closeSync,
  existsSync,
  type FSWatcher,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  watch,
} from 'node:fs';
import { constants as osConstants } from 'node:os';
import { dirname, join } from 'node:path';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { isId, type TaskId, taskId } from '#proto/model/ids.ts';
import type { Resources } from '#proto/model/resources.ts';
import {
  type BundleRecord,
  bundleRootfs,
  hadOom,
  makeBundle,
  readPid,
  readRecord,
  readSpec,
  removeBundle,
  writeRecord,
  writeSpec,
} from './bundle.ts';
import { capabilitiesOfMask } from './capabilities.ts';
import { type Cgroups, findCgroups } from './cgroup.ts';
import { conmonFiles, createByConmon, reopenConmonLog } from './conmon.ts';
import { execProcess, startExec } from './exec-session.ts';
import { endedAmong, pidfdOpen, pidfdSignal, unmount } from './libc.ts';
import { ociSpec } from './oci-spec.ts';
import { commandOf, networkBytes, startTicksOf, verified } from './processes.ts';
import { checkRootfs, mountRootfs, readInRoot, setTmpfsModes } from './rootfs.ts';
import type {
  ContainerExit,
  ContainerRequest,
  ContainerState,
  ContainerStats,
  ExecRequest,
  ExecSession,
  Runtime,
} from './runtime.ts';
import { seccompProfiles } from './seccomp.ts';
import { signalNumber } from './signals.ts';
import { runTool } from './tool.ts';
import { Places, Turns } from './turns.ts';
import { resolveUser } from './user.ts';

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

const deathCheckMs = 250;
const killPatienceMs = 10_000;
const maxExecs = 64;
/** Reported where nobody saw the exit code. */
const lostExitCode = 255;
const debian = {
  conmonPath: '/usr/bin/conmon',
  runtimePaths: { runc: '/usr/sbin/runc', crun: '/usr/bin/crun' } as Readonly<Record<string, string>>,
  initPath: '/usr/bin/tini-static',
  seccompPath: '/usr/share/containers/seccomp.json',
  cgroupParent: '/gantry',
};

/** A runtime over the containers found below `root`. Fault `precondition` where a part it needs is not installed. */
export async function conmonRuntime(parts: ConmonRuntimeParts): Promise<Runtime> {
  const settings = { ...debian, parallel: 8, ...parts, cgroups: parts.cgroups ?? findCgroups() };
  for (const path of [settings.conmonPath, settings.seccompPath]) {
    if (existsSync(path)) continue;
    throw new Fault('precondition', `${path} is missing`, {
      remedy: 'apt-get install conmon runc golang-github-containers-common',
    });
  }
  for (const path of [join(parts.root, 'containers'), join(parts.root, 'exits'), join(parts.run, 'oci')]) {
    mkdirSync(path, { recursive: true, mode: 0o700 });
  }
  const runtime = new ConmonRuntime(settings);
  await runtime.adopt();
  return runtime;
}

type Settings = Required<ConmonRuntimeParts>;

/** What the running agent knows of one container, beyond its record. */
interface Live {
  record: BundleRecord;
  pidfd: number | undefined;
  conmonPidfd: number | undefined;
  exit: ContainerExit | undefined;
  execs: number;
}

class ConmonRuntime implements Runtime {
  readonly #settings: Settings;
  readonly #log: Log;
  readonly #containers: string;
  readonly #exits: string;
  readonly #bootId: string;
  readonly #capabilities: readonly string[];
  readonly #maxOpenFiles: number;
  readonly #seccomp: ReturnType<typeof seccompProfiles>;
  readonly #live = new Map<TaskId, Live>();
  readonly #turns = new Turns<TaskId>();
  readonly #places: Places;
  readonly #listeners = new Set<(id: TaskId, exit: ContainerExit) => void>();
  #watcher: FSWatcher | undefined;
  #deathCheck: Timer | undefined;
  #closed = false;

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#places = new Places(settings.parallel);
    this.#log = settings.log;
    this.#containers = join(settings.root, 'containers');
    this.#exits = join(settings.root, 'exits');
    this.#bootId = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    const status = readFileSync('/proc/self/status', 'utf8');
    this.#capabilities = capabilitiesOfMask(/^CapBnd:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? '0');
    const limits = readFileSync('/proc/self/limits', 'utf8');
    this.#maxOpenFiles = Math.min(Number(/^Max open files\s+\S+\s+(\d+)/m.exec(limits)?.[1] ?? 1024), 1_048_576);
    this.#seccomp = seccompProfiles(readFileSync(settings.seccompPath, 'utf8'), process.arch);
  }

  /** Finds what is on disk, and watches from here on. */
  async adopt(): Promise<void> {
    this.#watch();
    const strays: TaskId[] = [];
    for (const name of readdirSync(this.#containers)) {
      if (!isId(name)) continue;
      const record = readRecord(this.#bundle(taskId(name)));
      if (record) this.#adoptOne(record);
      else strays.push(taskId(name));
    }
    for (const id of strays) {
      this.#log.warn('a container without a record is removed', { task: id });
      await this.delete(id).catch((error: unknown) => this.#log.error('its remains stay', { task: id, error }));
    }
    this.#checkDeaths();
  }

  /** Without it, exits are still found by the check of conmon's own end. */
  #watch(): void {
    const unwatched = (error: unknown) =>
      this.#log.warn('exits cannot be watched: they are noticed later', { path: this.#exits, error });
    try {
      this.#watcher = watch(this.#exits, (_, name) => {
        if (name && isId(name)) this.#noticeExit(taskId(name));
      });
      this.#watcher.on('error', unwatched);
    } catch (error) {
      unwatched(error);
    }
  }

  #adoptOne(found: BundleRecord): void {
    const bundle = this.#bundle(found.id);
    let record = found;
    if (record.pid === 0 && record.bootId === this.#bootId) record = this.#completed(record);
    const sameBoot = record.bootId === this.#bootId;
    const live: Live = {
      record,
      pidfd: sameBoot ? verified(record.pid, record.startTicks) : undefined,
      conmonPidfd: sameBoot ? verified(record.conmonPid, record.conmonStartTicks) : undefined,
      exit: record.exit,
      execs: 0,
    };
    this.#live.set(record.id, live);
    this.#noticeExit(record.id);
    if (live.exit || (live.conmonPidfd !== undefined && record.pid > 0)) return;
    this.#log.warn('a container was lost', {
      task: record.id,
      path: bundle,
      why: sameBoot ? 'conmon is gone' : 'reboot',
    });
    this.#lose(live);
  }

  /** The agent ended between conmon's start and its answer: the files conmon wrote say who is there. */
  #completed(record: BundleRecord): BundleRecord {
    const bundle = this.#bundle(record.id);
    const pid = readPid(bundle, conmonFiles.pid) ?? 0;
    const conmonPid = readPid(bundle, conmonFiles.conmonPid) ?? 0;
    const ours = this.#settings.cgroups.processes(this.#cgroup(record.id)).includes(pid);
    const conmonIsOurs = conmonPid > 0 && commandOf(conmonPid).includes(record.id);
    return {
      ...record,
      pid: ours ? pid : 0,
      startTicks: ours ? (startTicksOf(pid) ?? 0) : 0,
      conmonPid: conmonIsOurs ? conmonPid : 0,
      conmonStartTicks: conmonIsOurs ? (startTicksOf(conmonPid) ?? 0) : 0,
    };
  }

  create(request: ContainerRequest): Promise<{ readonly pid: number }> {
    return this.#inTurn(request.id, async () => {
      const existing = this.#live.get(request.id);
      if (existing && existing.record.pid > 0) return { pid: existing.record.pid };
      if (existing || existsSync(this.#bundle(request.id))) await this.#remove(request.id);
      await this.#places.take(() => this.#create(request));
      return { pid: this.#live.get(request.id)!.record.pid };
    });
  }

  async #create(request: ContainerRequest): Promise<void> {
    const { id } = request;
    const bundle = this.#bundle(id);
    const runtimePath = this.#runtimePath(request.runtime);
    const record: BundleRecord = {
      id,
      bootId: this.#bootId,
      runtime: request.runtime || 'runc',
      logPath: request.logPath,
      annotations: request.annotations,
      pid: 0,
      startTicks: 0,
      conmonPid: 0,
      conmonStartTicks: 0,
    };
    makeBundle(bundle);
    try {
      writeRecord(bundle, record);
      mountRootfs(request.rootfs, bundleRootfs(bundle));
      writeSpec(bundle, this.#spec(request));
      mkdirSync(dirname(request.logPath), { recursive: true, mode: 0o700 });
      const pid = await createByConmon(
        {
          conmonPath: this.#settings.conmonPath,
          runtimePath,
          runtimeRoot: this.#stateRoot(record.runtime),
          id,
          bundle,
          exitsDirectory: this.#exits,
          logPath: request.logPath,
          terminal: request.container.tty,
          stdinOpen: request.container.stdinOpen,
        },
        this.#settings.clock,
      );
      this.#began(record, pid);
    } catch (error) {
      await this.#remove(id).catch((failure: unknown) =>
        this.#log.warn('the remains of a container that could not be created stay', { task: id, error: failure }),
      );
      throw error;
    }
  }

  #spec(request: ContainerRequest) {
    const { id, container } = request;
    const rootfsPath = bundleRootfs(this.#bundle(id));
    if (container.init && !existsSync(this.#settings.initPath)) {
      throw new Fault('precondition', `init: ${this.#settings.initPath} is missing on this host`, {
        remedy: 'apt-get install tini',
      });
    }
    checkRootfs(rootfsPath);
    setTmpfsModes(rootfsPath, request.mounts);
    return ociSpec(request, {
      rootfsPath,
      cgroupPath: this.#cgroup(id),
      user: resolveUser(
        container.user || request.image.user,
        readInRoot(rootfsPath, '/etc/passwd'),
        readInRoot(rootfsPath, '/etc/group'),
      ),
      capabilitiesOfHost: this.#capabilities,
      seccomp: this.#seccomp,
      initPath: this.#settings.initPath,
      swapLimit: this.#settings.cgroups.swapLimit,
      maxOpenFiles: this.#maxOpenFiles,
    });
  }

  #began(record: BundleRecord, pid: number): void {
    const bundle = this.#bundle(record.id);
    const conmonPid = readPid(bundle, conmonFiles.conmonPid) ?? 0;
    const whole: BundleRecord = {
      ...record,
      pid,
      startTicks: startTicksOf(pid) ?? 0,
      conmonPid,
      conmonStartTicks: startTicksOf(conmonPid) ?? 0,
    };
    writeRecord(bundle, whole);
    this.#live.set(record.id, {
      record: whole,
      pidfd: verified(whole.pid, whole.startTicks),
      conmonPidfd: verified(whole.conmonPid, whole.conmonStartTicks),
      exit: undefined,
      execs: 0,
    });
    this.#noticeExit(record.id);
    void this.#moveConmon(record.id, conmonPid);
  }

  /** Out of the agent's cgroup. Not waited for: each move costs the kernel a grace period, and nothing depends on it. */
  async #moveConmon(id: TaskId, pid: number): Promise<void> {
    // 0 would move the agent itself.
    if (pid <= 0) return;
    try {
      await this.#settings.cgroups.adopt(`${this.#settings.cgroupParent}/conmon`, pid);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ESRCH') return;
      this.#log.warn('conmon stays in the cgroup of the agent', { task: id, error });
    }
  }

  start(id: TaskId): Promise<void> {
    return this.#inTurn(id, async () => {
      const live = this.#known(id);
      // The runtime's process waits on this pipe until it is started.
      const waits = existsSync(join(this.#stateRoot(live.record.runtime), id, 'exec.fifo'));
      if (!waits && !live.exit?.lost) return;
      if (live.exit) {
        throw new Fault('precondition', `the container of task ${id} ended before it was started`, {
          remedy: 'delete it and create it again',
        });
      }
      const { exitCode, output } = await this.#oci(live.record.runtime, 'start', id);
      if (exitCode === 0) return;
      throw new Fault('invalid', `the container could not be started: ${output}`, {
        remedy: 'check the command, and that the image has it',
      });
    });
  }

  async kill(id: TaskId, signal: string): Promise<void> {
    const number = signalNumber(signal);
    const live = this.#live.get(id);
    if (live?.pidfd !== undefined && !live.exit) pidfdSignal(live.pidfd, number);
  }

  delete(id: TaskId): Promise<void> {
    return this.#inTurn(id, () => this.#remove(id));
  }

  async #remove(id: TaskId): Promise<void> {
    const live = this.#live.get(id);
    const bundle = this.#bundle(id);
    if (!live && !existsSync(bundle) && !existsSync(join(this.#exits, id))) return;
    if (live && !live.exit) {
      if (live.pidfd !== undefined) pidfdSignal(live.pidfd, osConstants.signals.SIGKILL);
      else this.#settings.cgroups.kill(this.#cgroup(id));
      await this.#ended(id);
    }
    if (!live) this.#killStray(id);
    await this.#removeFromRuntime(live?.record.runtime ?? readRecord(bundle)?.runtime ?? 'runc', id);
    this.#clear(id);
  }

  /** A conmon that never answered. */
  #killStray(id: TaskId): void {
    const pid = readPid(this.#bundle(id), conmonFiles.conmonPid) ?? 0;
    const pidfd = pid > 0 ? pidfdOpen(pid) : undefined;
    if (pidfd === undefined) return;
    if (commandOf(pid).includes(id)) pidfdSignal(pidfd, osConstants.signals.SIGKILL);
    closeSync(pidfd);
  }

  async #removeFromRuntime(runtime: string, id: TaskId): Promise<void> {
    const state = join(this.#stateRoot(runtime), id);
    const cgroup = this.#cgroup(id);
    if (existsSync(state)) {
      const { exitCode, output } = await this.#oci(runtime, 'delete', id);
      if (exitCode !== 0) {
        this.#log.warn('the runtime could not delete a container: its remains are removed by hand', {
          task: id,
          why: output,
        });
        await this.#oci(runtime, 'delete', '--force', id);
        rmSync(state, { recursive: true, force: true });
      }
    }
    this.#settings.cgroups.kill(cgroup);
    const deadline = this.#settings.clock.monotonic() + killPatienceMs;
    while (!this.#settings.cgroups.remove(cgroup)) {
      if (this.#settings.clock.monotonic() > deadline) {
        throw new Fault('unavailable', `processes of task ${id} do not end`, {
          remedy: `they are in uninterruptible sleep: see cgroup ${cgroup}`,
        });
      }
      await this.#settings.clock.sleep(5);
    }
  }

  /** Resolves when its exit is known; a conmon that does not notice is given up. */
  async #ended(id: TaskId): Promise<void> {
    const deadline = this.#settings.clock.monotonic() + killPatienceMs;
    for (;;) {
      const live = this.#live.get(id);
      if (!live || live.exit) return;
      this.#noticeExit(id);
      if (live.exit) return;
      if (this.#settings.clock.monotonic() > deadline) {
        if (live.conmonPidfd !== undefined) pidfdSignal(live.conmonPidfd, osConstants.signals.SIGKILL);
        return this.#lose(live);
      }
      await this.#settings.clock.sleep(5);
    }
  }

  #clear(id: TaskId): void {
    const bundle = this.#bundle(id);
    if (existsSync(bundleRootfs(bundle))) while (unmount(bundleRootfs(bundle)));
    removeBundle(bundle);
    rmSync(join(this.#exits, id), { force: true });
    const live = this.#live.get(id);
    if (!live) return;
    this.#release(live);
    this.#live.delete(id);
  }

  #release(live: Live): void {
    for (const fd of [live.pidfd, live.conmonPidfd]) if (fd !== undefined) closeSync(fd);
    live.pidfd = undefined;
    live.conmonPidfd = undefined;
  }

  async list(): Promise<readonly ContainerState[]> {
    return [...this.#live.values()].map((live) => {
      const { id, pid, annotations, runtime } = live.record;
      const waits = existsSync(join(this.#stateRoot(runtime), id, 'exec.fifo'));
      const status = live.exit ? (live.exit.lost ? 'lost' : 'exited') : waits ? 'created' : 'running';
      return { id, status, pid, annotations, ...(live.exit ? { exit: live.exit } : {}) };
    });
  }

  onExit(listener: (id: TaskId, exit: ContainerExit) => void): () => void {
    this.#listeners.add(listener);
    const before = [...this.#live.values()].filter((live) => live.exit);
    queueMicrotask(() => {
      for (const live of before) if (this.#listeners.has(listener)) listener(live.record.id, live.exit!);
    });
    return () => this.#listeners.delete(listener);
  }

  #noticeExit(id: TaskId): void {
    const live = this.#live.get(id);
    if (!live || live.exit) return;
    const path = join(this.#exits, id);
    if (!existsSync(path)) return;
    const text = readFileSync(path, 'utf8').trim();
    if (!/^\d+$/.test(text)) return;
    const exitCode = Number(text);
    this.#exited(live, {
      exitCode,
      oomKilled: this.#oomKilled(id),
      atMs: Math.round(statSync(path).mtimeMs),
      lost: false,
    });
  }

  #oomKilled(id: TaskId): boolean {
    try {
      return this.#settings.cgroups.oomKills(this.#cgroup(id)) > 0 || hadOom(this.#bundle(id));
    } catch (error) {
      if (isFault(error, 'not-found')) return hadOom(this.#bundle(id));
      throw error;
    }
  }

  /** conmon is gone: nobody holds the container's output or will see it end, so it is ended here. */
  #lose(live: Live): void {
    const { id } = live.record;
    if (live.pidfd !== undefined) pidfdSignal(live.pidfd, osConstants.signals.SIGKILL);
    const exit = {
      exitCode: lostExitCode,
      oomKilled: this.#oomKilled(id),
      atMs: this.#settings.clock.now(),
      lost: true,
    };
    live.record = { ...live.record, exit };
    writeRecord(this.#bundle(id), live.record);
    this.#exited(live, exit);
  }

  #exited(live: Live, exit: ContainerExit): void {
    live.exit = exit;
    this.#release(live);
    for (const listener of this.#listeners) listener(live.record.id, exit);
  }

  /** conmon's end without an exit file is a container nobody watches; also finds exits whose file event was missed. */
  #checkDeaths(): void {
    if (this.#closed) return;
    const watched = new Map<number, Live>();
    for (const live of this.#live.values()) if (live.conmonPidfd !== undefined) watched.set(live.conmonPidfd, live);
    for (const fd of endedAmong([...watched.keys()])) {
      const live = watched.get(fd)!;
      this.#noticeExit(live.record.id);
      if (live.exit) continue;
      this.#log.warn('a container was lost', { task: live.record.id, why: 'conmon is gone' });
      this.#lose(live);
    }
    this.#deathCheck = this.#settings.clock.after(deathCheckMs, () => this.#checkDeaths());
  }

  async exec(request: ExecRequest): Promise<ExecSession> {
    const live = this.#running(request.id);
    if (request.command.length === 0 || request.command[0] === '')
      throw new Fault('invalid', 'exec: no command was given');
    if (live.execs >= maxExecs) {
      throw new Fault('exhausted', `task ${request.id} has ${maxExecs} exec sessions already`, {
        remedy: 'end one of them',
      });
    }
    const bundle = this.#bundle(request.id);
    const session = startExec(
      {
        id: request.id,
        runtimePath: this.#runtimePath(live.record.runtime),
        runtimeRoot: this.#stateRoot(live.record.runtime),
        bundle,
        containerPid: live.record.pid,
        stdin: request.stdin,
        columns: request.columns,
        rows: request.rows,
        process: execProcess(request, readSpec(bundle).process, live.record.pid),
      },
      this.#settings.clock,
    );
    live.execs++;
    void session.exit.finally(() => live.execs--);
    return session;
  }

  async stats(id: TaskId): Promise<ContainerStats> {
    const live = this.#running(id);
    const usage = this.#settings.cgroups.usage(this.#cgroup(id));
    return { ...usage, ...networkBytes(live.record.pid) };
  }

  async updateLimits(id: TaskId, limits: Resources): Promise<void> {
    this.#running(id);
    this.#settings.cgroups.setLimits(this.#cgroup(id), limits);
  }

  async reopenLog(id: TaskId): Promise<void> {
    if (this.#known(id).exit) return;
    reopenConmonLog(this.#bundle(id));
  }

  async versions(): Promise<Readonly<Record<string, string>>> {
    const found: Record<string, string> = {};
    const tools = { conmon: this.#settings.conmonPath, ...this.#settings.runtimePaths };
    for (const [name, path] of Object.entries(tools)) {
      if (!existsSync(path)) continue;
      const { output } = await runTool(path, ['--version']);
      found[name] = /version:?\s+(\S+)/.exec(output)?.[1] ?? 'unknown';
    }
    return found;
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watcher?.close();
    this.#deathCheck?.cancel();
    await this.#turns.idle();
    for (const live of this.#live.values()) this.#release(live);
    this.#listeners.clear();
  }

  #bundle(id: TaskId): string {
    if (!isId(id)) throw new Fault('invalid', `"${id}" is not a task id`);
    return join(this.#containers, id);
  }

  #cgroup(id: TaskId): string {
    return `${this.#settings.cgroupParent}/${id}`;
  }

  #stateRoot(runtime: string): string {
    return join(this.#settings.run, 'oci', runtime);
  }

  #runtimePath(name: string): string {
    const path = this.#settings.runtimePaths[name || 'runc'];
    if (path && existsSync(path)) return path;
    throw new Fault('unsupported', `this host has no runtime "${name}"`, {
      remedy: `it has ${Object.keys(this.#settings.runtimePaths).join(', ')}; install it, or change \`runtime:\``,
    });
  }

  #oci(runtime: string, command: string, ...args: readonly string[]) {
    return runTool(this.#runtimePath(runtime), ['--root', this.#stateRoot(runtime), command, ...args]);
  }

  #known(id: TaskId): Live {
    const live = this.#live.get(id);
    if (live) return live;
    throw new Fault('not-found', `there is no container of task ${id} on this node`);
  }

  #running(id: TaskId): Live {
    const live = this.#known(id);
    if (!live.exit) return live;
    throw new Fault('precondition', `the container of task ${id} has ended`, { remedy: 'look at its logs' });
  }

  #inTurn<T>(id: TaskId, action: () => Promise<T>): Promise<T> {
    if (this.#closed) return Promise.reject(new Fault('cancelled', 'the runtime is closed'));
    return this.#turns.take(id, action);
  }
}
