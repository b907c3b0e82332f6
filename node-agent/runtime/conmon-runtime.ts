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
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import { isId, type TaskId, taskId } from '#proto/model/ids.ts';
import {
  type BundleRecord,
  bundleRootfs,
  makeBundle,
  readPid,
  readRecord,
  readSpec,
  removeBundle,
  writeRecord,
  writeSpec,
} from './bundle.ts';
import { conmonFiles, createByConmon, reopenConmonLog } from './conmon.ts';
import { type ConmonRuntimeParts, ContainerHost } from './container-host.ts';
import { deviceNumber } from './devices.ts';
import { execProcess, startExec } from './exec-session.ts';
import { endedAmong, pidfdSignal, unmount } from './libc.ts';
import { networkBytes, startTicksOf, verified } from './processes.ts';
import { mountRootfs } from './rootfs.ts';
import type {
  ContainerExit,
  ContainerRequest,
  ContainerState,
  ContainerStats,
  ExecRequest,
  ExecSession,
  LiveSettings,
  Runtime,
} from './runtime.ts';
import { signalNumber } from './signals.ts';
import { Places, Turns } from './turns.ts';

const deathCheckMs = 250;
const exitPatienceMs = 10_000;
const maxExecs = 64;
/** Reported where nobody saw the exit code. */
const lostExitCode = 255;
/** A runtime over the containers found below `root`. Fault `precondition` where a part it needs is not installed. */
export async function conmonRuntime(parts: ConmonRuntimeParts): Promise<Runtime> {
  const runtime = new ConmonRuntime(new ContainerHost(parts));
  await runtime.adopt();
  return runtime;
}

/** What the running agent knows of one container, beyond its record. */
interface Live {
  record: BundleRecord;
  pidfd: number | undefined;
  conmonPidfd: number | undefined;
  exit: ContainerExit | undefined;
  execs: number;
}

class ConmonRuntime implements Runtime {
  readonly #host: ContainerHost;
  readonly #clock: Clock;
  readonly #log: Log;
  readonly #live = new Map<TaskId, Live>();
  readonly #turns = new Turns<TaskId>();
  readonly #places: Places;
  readonly #listeners = new Set<(id: TaskId, exit: ContainerExit) => void>();
  #watcher: FSWatcher | undefined;
  #deathCheck: Timer | undefined;
  #closed = false;

  constructor(host: ContainerHost) {
    this.#host = host;
    this.#clock = host.settings.clock;
    this.#log = host.settings.log;
    this.#places = new Places(host.settings.parallel);
  }

  /** Finds what is on disk, and watches from here on. */
  async adopt(): Promise<void> {
    this.#watch();
    const strays: TaskId[] = [];
    for (const name of readdirSync(this.#host.containers)) {
      if (!isId(name)) continue;
      const record = readRecord(this.#host.bundle(taskId(name)));
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
      this.#log.warn('exits cannot be watched: they are noticed later', { path: this.#host.exits, error });
    try {
      this.#watcher = watch(this.#host.exits, (_, name) => {
        if (name && isId(name)) this.#noticeExit(taskId(name));
      });
      this.#watcher.on('error', unwatched);
    } catch (error) {
      unwatched(error);
    }
  }

  #adoptOne(found: BundleRecord): void {
    const bundle = this.#host.bundle(found.id);
    let record = found;
    if (record.pid === 0 && record.bootId === this.#host.bootId) record = this.#host.completed(record);
    const sameBoot = record.bootId === this.#host.bootId;
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

  create(request: ContainerRequest): Promise<{ readonly pid: number }> {
    return this.#inTurn(request.id, async () => {
      const existing = this.#live.get(request.id);
      if (existing && existing.record.pid > 0) return { pid: existing.record.pid };
      if (existing || existsSync(this.#host.bundle(request.id))) await this.#remove(request.id);
      await this.#places.take(() => this.#create(request));
      return { pid: this.#live.get(request.id)!.record.pid };
    });
  }

  async #create(request: ContainerRequest): Promise<void> {
    const { id } = request;
    const bundle = this.#host.bundle(id);
    const runtimePath = this.#host.runtimePath(request.runtime);
    const record: BundleRecord = {
      id,
      bootId: this.#host.bootId,
      runtime: request.runtime || 'runc',
      logPath: request.logPath,
      annotations: request.annotations,
      settings: { limits: request.limits, controls: request.controls },
      pid: 0,
      startTicks: 0,
      conmonPid: 0,
      conmonStartTicks: 0,
    };
    makeBundle(bundle);
    try {
      writeRecord(bundle, record);
      mountRootfs(request.rootfs, bundleRootfs(bundle));
      writeSpec(bundle, this.#host.spec(request));
      mkdirSync(dirname(request.logPath), { recursive: true, mode: 0o700 });
      const pid = await createByConmon(
        {
          conmonPath: this.#host.settings.conmonPath,
          runtimePath,
          runtimeRoot: this.#host.stateRoot(record.runtime),
          id,
          bundle,
          exitsDirectory: this.#host.exits,
          logPath: request.container.logging.driver === 'none' ? '' : request.logPath,
          terminal: request.container.tty,
          stdinOpen: request.container.stdinOpen,
        },
        this.#clock,
      );
      this.#began(record, pid);
    } catch (error) {
      await this.#remove(id).catch((failure: unknown) =>
        this.#log.warn('the remains of a container that could not be created stay', { task: id, error: failure }),
      );
      throw error;
    }
  }
  #began(record: BundleRecord, pid: number): void {
    const bundle = this.#host.bundle(record.id);
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
    void this.#host.moveConmon(record.id, conmonPid);
  }

  start(id: TaskId): Promise<void> {
    return this.#inTurn(id, async () => {
      const live = this.#known(id);
      // The runtime's process waits on this pipe until it is started.
      const waits = existsSync(join(this.#host.stateRoot(live.record.runtime), id, 'exec.fifo'));
      if (!waits && !live.exit?.lost) return;
      if (live.exit) {
        throw new Fault('precondition', `the container of task ${id} ended before it was started`, {
          remedy: 'delete it and create it again',
        });
      }
      const { exitCode, output } = await this.#host.oci(live.record.runtime, 'start', id);
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
    const bundle = this.#host.bundle(id);
    if (!live && !existsSync(bundle) && !existsSync(join(this.#host.exits, id))) return;
    if (live && !live.exit) {
      if (live.pidfd !== undefined) pidfdSignal(live.pidfd, osConstants.signals.SIGKILL);
      else this.#host.settings.cgroups.kill(this.#host.cgroup(id));
      await this.#ended(id);
    }
    // An earlier agent began it, and conmon may still be about to create it.
    if (!live || live.record.pid === 0) this.#host.killStray(id);
    await this.#host.removeFromRuntime(live?.record.runtime ?? readRecord(bundle)?.runtime ?? 'runc', id);
    this.#clear(id);
  }
  /** Resolves when its exit is known; a conmon that does not notice is given up. */
  async #ended(id: TaskId): Promise<void> {
    const deadline = this.#clock.monotonic() + exitPatienceMs;
    for (;;) {
      const live = this.#live.get(id);
      if (!live || live.exit) return;
      this.#noticeExit(id);
      if (live.exit) return;
      if (this.#clock.monotonic() > deadline) {
        if (live.conmonPidfd !== undefined) pidfdSignal(live.conmonPidfd, osConstants.signals.SIGKILL);
        return this.#lose(live);
      }
      await this.#clock.sleep(5);
    }
  }

  #clear(id: TaskId): void {
    const bundle = this.#host.bundle(id);
    if (existsSync(bundleRootfs(bundle))) while (unmount(bundleRootfs(bundle)));
    removeBundle(bundle);
    rmSync(join(this.#host.exits, id), { force: true });
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
      const { id, pid, annotations, runtime, settings } = live.record;
      const waits = existsSync(join(this.#host.stateRoot(runtime), id, 'exec.fifo'));
      const status = live.exit ? (live.exit.lost ? 'lost' : 'exited') : waits ? 'created' : 'running';
      return { id, status, pid, annotations, settings, ...(live.exit ? { exit: live.exit } : {}) };
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
    const path = join(this.#host.exits, id);
    if (!existsSync(path)) return;
    const text = readFileSync(path, 'utf8').trim();
    if (!/^\d+$/.test(text)) return;
    const exitCode = Number(text);
    this.#exited(live, {
      exitCode,
      oomKilled: this.#host.oomKilled(id),
      atMs: Math.round(statSync(path).mtimeMs),
      lost: false,
    });
  }
  /** conmon is gone: nobody holds the container's output or will see it end, so it is ended here. */
  #lose(live: Live): void {
    const { id } = live.record;
    if (live.pidfd !== undefined) pidfdSignal(live.pidfd, osConstants.signals.SIGKILL);
    const exit = {
      exitCode: lostExitCode,
      oomKilled: this.#host.oomKilled(id),
      atMs: this.#clock.now(),
      lost: true,
    };
    live.record = { ...live.record, exit };
    writeRecord(this.#host.bundle(id), live.record);
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
    this.#deathCheck = this.#clock.after(deathCheckMs, () => this.#checkDeaths());
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
    const bundle = this.#host.bundle(request.id);
    const session = startExec(
      {
        id: request.id,
        runtimePath: this.#host.runtimePath(live.record.runtime),
        runtimeRoot: this.#host.stateRoot(live.record.runtime),
        bundle,
        containerPid: live.record.pid,
        stdin: request.stdin,
        columns: request.columns,
        rows: request.rows,
        process: execProcess(request, readSpec(bundle).process, live.record.pid, this.#host.capabilities),
      },
      this.#clock,
    );
    live.execs++;
    void session.exit.finally(() => live.execs--);
    return session;
  }

  async stats(id: TaskId): Promise<ContainerStats> {
    const live = this.#running(id);
    const usage = this.#host.settings.cgroups.usage(this.#host.cgroup(id));
    return { ...usage, ...networkBytes(live.record.pid) };
  }

  updateLimits(id: TaskId, settings: LiveSettings): Promise<void> {
    return this.#inTurn(id, async () => {
      const live = this.#running(id);
      const { cgroups } = this.#host.settings;
      const lacking = cgroups.lacking(settings.controls);
      if (lacking) throw new Fault('unsupported', lacking.message, { remedy: lacking.remedy });
      cgroups.setLimits(this.#host.cgroup(id), settings, deviceNumber);
      live.record = { ...live.record, settings };
      writeRecord(this.#host.bundle(id), live.record);
    });
  }

  async reopenLog(id: TaskId): Promise<void> {
    if (this.#known(id).exit) return;
    reopenConmonLog(this.#host.bundle(id));
  }
  versions(): Promise<Readonly<Record<string, string>>> {
    return this.#host.versions();
  }

  async close(): Promise<void> {
    this.#closed = true;
    this.#watcher?.close();
    this.#deathCheck?.cancel();
    await this.#turns.idle();
    for (const live of this.#live.values()) this.#release(live);
    this.#listeners.clear();
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
