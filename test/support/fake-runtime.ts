/** A Runtime in memory, on a clock handed in: for the simulator, and for tests of what stands above it. */
import { PassThrough, Readable } from 'node:stream';
import type {
  ContainerExit,
  ContainerRequest,
  ContainerState,
  ContainerStats,
  ExecRequest,
  ExecSession,
  LiveSettings,
  Runtime,
} from '#node-agent/runtime/runtime.ts';
import { signalNumber } from '#node-agent/runtime/signals.ts';
import type { Clock, Timer } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { TaskId } from '#proto/model/ids.ts';

/** How a container behaves; what is absent takes no time and goes well, and the process stays until it is killed. */
export interface FakeBehaviour {
  readonly createMs?: number;
  readonly startMs?: number;
  /** Between the signal and the end. */
  readonly stopMs?: number;
  readonly createFault?: Fault;
  readonly startFault?: Fault;
  /** It ends by itself this long after its start. */
  readonly exitAfterMs?: number;
  readonly exitCode?: number;
  readonly oomKilled?: boolean;
  /** Only SIGKILL ends it. */
  readonly ignoresSignals?: boolean;
  readonly exec?: (request: ExecRequest) => {
    readonly stdout?: string;
    readonly stderr?: string;
    readonly exitCode?: number;
    /** It does not end until it is signalled. */
    readonly stays?: boolean;
  };
  readonly stats?: Partial<ContainerStats>;
}

interface FakeContainer {
  readonly request: ContainerRequest;
  readonly behaviour: FakeBehaviour;
  readonly pid: number;
  started: boolean;
  settings: LiveSettings;
  exit: ContainerExit | undefined;
  timer: Timer | undefined;
}

/** What outlives an agent: the machine's containers. Several runtimes over one host are the agent before and after a restart. */
export class FakeContainerHost {
  readonly containers = new Map<TaskId, FakeContainer>();
  /** Those that are being created: whoever creates one anew, or deletes it, ends what was begun before. */
  readonly begun = new Map<TaskId, ContainerRequest>();
  readonly #clock: Clock;
  readonly #watchers = new Set<(id: TaskId, exit: ContainerExit) => void>();
  #nextPid = 1000;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  watch(watcher: (id: TaskId, exit: ContainerExit) => void): () => void {
    this.#watchers.add(watcher);
    return () => this.#watchers.delete(watcher);
  }

  add(request: ContainerRequest, behaviour: FakeBehaviour): FakeContainer {
    const pid = this.#nextPid++;
    const made = {
      request,
      behaviour,
      pid,
      started: false,
      settings: { limits: request.limits, controls: request.controls },
      exit: undefined,
      timer: undefined,
    };
    this.containers.set(request.id, made);
    return made;
  }

  start(container: FakeContainer): void {
    container.started = true;
    const { exitAfterMs, exitCode = 0, oomKilled = false } = container.behaviour;
    if (exitAfterMs !== undefined) this.#endAfter(container, exitAfterMs, exitCode, oomKilled);
  }

  signal(container: FakeContainer, signal: number): void {
    const lethal = signal === 9 || ([1, 2, 3, 15].includes(signal) && !container.behaviour.ignoresSignals);
    if (!lethal || container.exit) return;
    container.timer?.cancel();
    this.#endAfter(container, container.behaviour.stopMs ?? 0, 128 + signal, false);
  }

  /** The process ends now: a crash, as tests wish. */
  end(id: TaskId, exitCode: number, fields: Partial<ContainerExit> = {}): void {
    const container = this.containers.get(id);
    if (!container || container.exit) return;
    container.timer?.cancel();
    container.exit = { exitCode, oomKilled: false, atMs: this.#clock.now(), lost: false, ...fields };
    for (const watcher of this.#watchers) watcher(id, container.exit);
  }

  /** The power fails: every container is lost. */
  reboot(): void {
    for (const id of this.containers.keys()) this.end(id, 255, { lost: true });
  }

  remove(id: TaskId): void {
    this.containers.get(id)?.timer?.cancel();
    this.containers.delete(id);
    this.begun.delete(id);
  }

  #endAfter(container: FakeContainer, ms: number, exitCode: number, oomKilled: boolean): void {
    const { id } = container.request;
    if (ms === 0) this.end(id, exitCode, { oomKilled });
    else container.timer = this.#clock.after(ms, () => this.end(id, exitCode, { oomKilled }));
  }
}

export class FakeRuntime implements Runtime {
  readonly #clock: Clock;
  readonly #host: FakeContainerHost;
  readonly #behaviour: (request: ContainerRequest) => FakeBehaviour;
  readonly #listeners = new Set<(id: TaskId, exit: ContainerExit) => void>();
  readonly #unwatch: () => void;
  /** Ids of the logs reopened, in order. */
  readonly reopened: TaskId[] = [];

  constructor(parts: {
    readonly clock: Clock;
    readonly host?: FakeContainerHost;
    readonly behaviour?: (request: ContainerRequest) => FakeBehaviour;
  }) {
    this.#clock = parts.clock;
    this.#host = parts.host ?? new FakeContainerHost(parts.clock);
    this.#behaviour = parts.behaviour ?? (() => ({}));
    this.#unwatch = this.#host.watch((id, exit) => {
      for (const listener of this.#listeners) listener(id, exit);
    });
  }

  get host(): FakeContainerHost {
    return this.#host;
  }

  async create(request: ContainerRequest): Promise<{ readonly pid: number }> {
    const existing = this.#host.containers.get(request.id);
    if (existing) return { pid: existing.pid };
    const behaviour = this.#behaviour(request);
    const { begun } = this.#host;
    begun.set(request.id, request);
    if (behaviour.createMs) await this.#clock.sleep(behaviour.createMs);
    if (begun.get(request.id) !== request) throw new Fault('unavailable', `the beginning of ${request.id} was ended`);
    begun.delete(request.id);
    if (behaviour.createFault) throw behaviour.createFault;
    return { pid: (this.#host.containers.get(request.id) ?? this.#host.add(request, behaviour)).pid };
  }

  async start(id: TaskId): Promise<void> {
    const container = this.#known(id);
    if (container.started) return;
    if (container.exit) {
      throw new Fault('precondition', `the container of task ${id} ended before it was started`, {
        remedy: 'delete it and create it again',
      });
    }
    if (container.behaviour.startMs) await this.#clock.sleep(container.behaviour.startMs);
    if (container.behaviour.startFault) throw container.behaviour.startFault;
    if (!container.started && !container.exit) this.#host.start(container);
  }

  async kill(id: TaskId, signal: string): Promise<void> {
    const number = signalNumber(signal);
    const container = this.#host.containers.get(id);
    if (container) this.#host.signal(container, number);
  }

  async delete(id: TaskId): Promise<void> {
    this.#host.end(id, 137);
    this.#host.remove(id);
  }

  async list(): Promise<readonly ContainerState[]> {
    return [...this.#host.containers.values()].map((container) => ({
      id: container.request.id,
      status: container.exit ? (container.exit.lost ? 'lost' : 'exited') : container.started ? 'running' : 'created',
      pid: container.pid,
      annotations: container.request.annotations,
      settings: container.settings,
      ...(container.exit ? { exit: container.exit } : {}),
    }));
  }

  onExit(listener: (id: TaskId, exit: ContainerExit) => void): () => void {
    this.#listeners.add(listener);
    const before = [...this.#host.containers.values()].filter((container) => container.exit);
    queueMicrotask(() => {
      for (const { request, exit } of before) if (this.#listeners.has(listener)) listener(request.id, exit!);
    });
    return () => this.#listeners.delete(listener);
  }

  async exec(request: ExecRequest): Promise<ExecSession> {
    const container = this.#running(request.id);
    if (request.command.length === 0) throw new Fault('invalid', 'exec: no command was given');
    const answer = container.behaviour.exec?.(request) ?? {};
    const [stdout, stderr] = [new Readable({ read() {} }), new Readable({ read() {} })];
    const { promise, resolve } = Promise.withResolvers<number>();
    const finish = (exitCode: number) => {
      stdout.push(null);
      stderr.push(null);
      resolve(exitCode);
    };
    stdout.push(answer.stdout ?? '');
    stderr.push(answer.stderr ?? '');
    if (!answer.stays) finish(answer.exitCode ?? 0);
    return {
      stdin: request.stdin ? new PassThrough().resume() : undefined,
      stdout,
      stderr: request.tty ? undefined : stderr,
      resize() {},
      signal: (signal) => finish(128 + signalNumber(signal)),
      exit: promise,
    };
  }

  async stats(id: TaskId): Promise<ContainerStats> {
    const container = this.#running(id);
    return {
      cpuSeconds: 0,
      memoryBytes: 1 << 20,
      memoryLimitBytes: container.settings.limits.memoryBytes,
      pids: 1,
      networkReceivedBytes: 0,
      networkSentBytes: 0,
      ...container.behaviour.stats,
    };
  }

  async updateLimits(id: TaskId, settings: LiveSettings): Promise<void> {
    this.#running(id).settings = settings;
  }

  async reopenLog(id: TaskId): Promise<void> {
    this.#known(id);
    this.reopened.push(id);
  }

  async versions(): Promise<Readonly<Record<string, string>>> {
    return { fake: '1' };
  }

  async close(): Promise<void> {
    this.#unwatch();
    this.#listeners.clear();
  }

  #known(id: TaskId): FakeContainer {
    const container = this.#host.containers.get(id);
    if (container) return container;
    throw new Fault('not-found', `there is no container of task ${id} on this node`);
  }

  #running(id: TaskId): FakeContainer {
    const container = this.#known(id);
    if (!container.exit) return container;
    throw new Fault('precondition', `the container of task ${id} has ended`, { remedy: 'look at its logs' });
  }
}
