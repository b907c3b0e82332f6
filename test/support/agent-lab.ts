/** Production agents and dispatch on a memory store, with fakes below: what scenario tests of the agent stand on. */
import { EventEmitter } from 'node:events';
import { PassThrough } from 'node:stream';
import { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import type { Notice } from '#control-plane/dispatch/notices.ts';
import { MemoryEtcd, type MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import type { Store } from '#control-plane/store/store.ts';
import { type Agent, startAgent } from '#node-agent/agent.ts';
import type { Heartbeat } from '#node-agent/heartbeat.ts';
import { parseReference } from '#node-agent/images/reference.ts';
import { Journal, type JournalFile } from '#node-agent/journal.ts';
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
import type { Mounts } from '#node-agent/task/steps.ts';
import type { Transport } from '#node-agent/transport.ts';
import { type Clock, systemClock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { silentLog } from '#proto/kernel/log.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service, TaskTemplate } from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { aCluster, aNode, aRevision, aService, aTask, aTemplate } from './builders.ts';
import { FakeFence } from './fake-fence.ts';
import { FakeImages, type FakeRegistry, fakeRegistry } from './fake-images.ts';
import { FakeNetwork } from './fake-network.ts';
import { FakeContainerHost } from './fake-runtime.ts';
import { MemoryNetwork } from './memory-transport.ts';
import { testSeal } from './test-seal.ts';

/** Containers of one machine, in memory: they outlive agents, as real ones do, until `reboot`. */
export class LabRuntime implements Runtime {
  readonly containers = new Map<TaskId, { state: ContainerState; request: ContainerRequest | undefined }>();
  readonly signals: { readonly id: TaskId; readonly signal: string }[] = [];
  /** Containers that ignore everything but SIGKILL. */
  readonly stubborn = new Set<TaskId>();
  startFault: Fault | undefined;
  /** What a health check's exec exits with. */
  execExitCode = 0;
  readonly execs: ExecRequest[] = [];
  readonly #listeners = new Set<(id: TaskId, exit: ContainerExit) => void>();
  #pid = 1_000;

  async create(request: ContainerRequest): Promise<{ pid: number }> {
    const held = this.containers.get(request.id);
    if (held) return { pid: held.state.pid };
    const pid = ++this.#pid;
    const { id, annotations, limits, controls } = request;
    const state: ContainerState = { id, status: 'created', pid, annotations, settings: { limits, controls } };
    this.containers.set(request.id, { state, request });
    return { pid };
  }
  async start(id: TaskId): Promise<void> {
    if (this.startFault) throw this.startFault;
    const held = this.containers.get(id);
    if (!held) throw new Fault('not-found', `no container ${id}`);
    if (held.state.status === 'created') held.state = { ...held.state, status: 'running' };
  }
  async kill(id: TaskId, signal: string): Promise<void> {
    this.signals.push({ id, signal });
    if (signal === 'SIGKILL') this.exit(id, 137);
    else if (!this.stubborn.has(id)) this.exit(id, 0);
  }
  async delete(id: TaskId): Promise<void> {
    this.containers.delete(id);
  }
  async list(): Promise<ContainerState[]> {
    return [...this.containers.values()].map(({ state }) => state);
  }
  onExit(listener: (id: TaskId, exit: ContainerExit) => void): () => void {
    this.#listeners.add(listener);
    for (const { state } of this.containers.values()) if (state.exit) listener(state.id, state.exit);
    return () => this.#listeners.delete(listener);
  }
  /** The container's process ends. */
  exit(id: TaskId, exitCode: number, fields: Partial<ContainerExit> = {}): void {
    const held = this.containers.get(id);
    if (!held || held.state.status === 'exited') return;
    const exit = { exitCode, oomKilled: false, atMs: systemClock.now(), lost: false, ...fields };
    held.state = { ...held.state, status: 'exited', exit };
    for (const listener of this.#listeners) listener(id, exit);
  }
  /** A container that no agent of ours made. */
  stray(id: TaskId): void {
    this.containers.set(id, {
      state: { id, status: 'running', pid: 1, annotations: {} },
      request: undefined,
    });
  }
  /** `cat` echoes its input, `sleep` ends when it is signalled; everything else ends at once. */
  async exec(request: ExecRequest): Promise<ExecSession> {
    if (!this.containers.has(request.id)) throw new Fault('not-found', `no container ${request.id}`);
    this.execs.push(request);
    const stdout = new PassThrough();
    const events = new EventEmitter();
    const ended = new Promise<number>((resolve) => events.once('exit', resolve));
    const stdin = request.stdin ? new PassThrough() : undefined;
    const end = (code: number) => {
      stdout.end();
      events.emit('exit', code);
    };
    if (request.command[0] === 'cat' && stdin) {
      stdin.on('data', (chunk) => stdout.write(chunk));
      stdin.on('end', () => end(7));
    } else if (request.command[0] !== 'sleep') setImmediate(end, this.execExitCode);
    return { stdin, stdout, stderr: undefined, resize() {}, signal: () => end(129), exit: ended };
  }
  async stats(): Promise<ContainerStats> {
    return {
      cpuSeconds: 1,
      memoryBytes: 2,
      memoryLimitBytes: 3,
      pids: 4,
      networkReceivedBytes: 5,
      networkSentBytes: 6,
    };
  }
  /** More memory than a new limit is in use. */
  memoryInUse = 0;
  async updateLimits(id: TaskId, settings: LiveSettings): Promise<void> {
    const held = this.containers.get(id);
    if (!held) throw new Fault('not-found', `no container ${id}`);
    const { memoryBytes } = settings.limits;
    if (memoryBytes > 0 && memoryBytes < this.memoryInUse)
      throw new Fault('exhausted', `${this.memoryInUse} bytes of memory are in use`);
    held.state = { ...held.state, settings };
  }
  async reopenLog(): Promise<void> {}
  async versions(): Promise<Record<string, string>> {
    return {};
  }
  async close(): Promise<void> {}
}

/** Mounts nothing, and remembers what was asked for. */
class LabMounts implements Mounts {
  readonly requests: Parameters<Mounts['prepare']>[0][] = [];
  async prepare(request: Parameters<Mounts['prepare']>[0]): Promise<readonly []> {
    this.requests.push(request);
    return [];
  }
  async release(): Promise<void> {}
  async held(): Promise<readonly []> {
    return [];
  }
}

/** The journal's lines, kept as a disk would keep them. */
export class LabDisk implements JournalFile {
  text = '';
  read(): string {
    return this.text;
  }
  append(text: string): void {
    this.text += text;
  }
  replace(text: string): void {
    this.text = text;
  }
}

/** One machine and the agent that may run on it. */
export class LabHost {
  readonly id: NodeId;
  readonly node: Node;
  readonly runtime = new LabRuntime();
  readonly network = new FakeNetwork();
  readonly images: FakeImages;
  readonly disk = new LabDisk();
  readonly mounts = new LabMounts();
  readonly removedVolumes: string[] = [];
  bootId = 'boot-1';
  /** What its agent tells of it beside what `node` says. */
  facts: Partial<Node> = {};
  /** What its wall clock is ahead of the others'. */
  skewMs = 0;
  agent: Agent | undefined;
  readonly #lab: AgentLab;
  #heartbeat: Heartbeat | undefined;

  constructor(lab: AgentLab, node: Node) {
    this.#lab = lab;
    this.node = node;
    this.id = node.id;
    this.images = new FakeImages(lab.clock, lab.registry);
  }

  async start(
    options: { transport?: Transport; heartbeat?: Heartbeat; addresses?: readonly string[] } = {},
  ): Promise<Agent> {
    const { net } = this.#lab;
    const clock: Clock = { ...this.#lab.clock, now: () => this.#lab.clock.now() + this.skewMs };
    this.#heartbeat = options.heartbeat ?? net.heartbeatOf(this.id);
    this.agent = await startAgent({
      clock,
      random: seededRandom(1),
      log: silentLog,
      journal: new Journal(this.disk),
      runtime: this.runtime,
      images: this.images,
      network: this.network,
      mounts: this.mounts,
      logs: { path: (task) => `/logs/${task}/current.log`, follow() {}, drop: async () => {} },
      // Who leads in the lab says what it likes: leases are not its subject.
      fence: new FakeFence(clock, new FakeContainerHost(clock), Number.POSITIVE_INFINITY),
      bootId: this.bootId,
      registryOf: (image) => parseReference(image).registry,
      removeVolume: async (name) => {
        this.removedVolumes.push(name);
      },
      readLog: async function* () {
        yield Buffer.from('2026-11-22T05:51:52.816319755+00:00 stdout F hello\n');
      },
      transport: options.transport ?? net.transportOf(this.id),
      heartbeat: this.#heartbeat,
      addresses: options.addresses ?? ['m1:7400'],
      describe: () => ({ ...this.node, ...this.facts, bootId: this.bootId }),
    });
    return this.agent;
  }

  /** The agent's process ends; the machine goes on. */
  async stop(): Promise<void> {
    this.agent?.close();
    await this.#heartbeat?.close();
    this.agent = undefined;
  }

  /** Power off and on: nothing of what ran is left. */
  async reboot(): Promise<void> {
    await this.stop();
    this.bootId = `${this.bootId}+`;
    for (const [id, held] of this.runtime.containers) {
      const exit: ContainerExit = { exitCode: 255, oomKilled: false, atMs: 0, lost: true };
      this.runtime.containers.set(id, { ...held, state: { ...held.state, status: 'lost', pid: 0, exit } });
    }
    this.network.attachments.clear();
  }
}

export class AgentLab {
  readonly clock: Clock;
  readonly etcd: MemoryEtcd;
  readonly store: MemoryStore;
  readonly net: MemoryNetwork;
  readonly registry: FakeRegistry = fakeRegistry();
  readonly hosts: LabHost[] = [];
  readonly dispatches: Dispatch[] = [];
  /** What nodes have said of themselves. */
  readonly notices: Notice[] = [];

  constructor(clock: Clock = systemClock) {
    this.clock = clock;
    this.etcd = new MemoryEtcd({ clock });
    this.store = this.etcd.open();
    this.net = new MemoryNetwork({ clock });
  }

  /** A cluster led by replica m1, with these nodes and one service `web`. */
  static async start(nodes: readonly string[], template: Partial<TaskTemplate> = {}): Promise<AgentLab> {
    const lab = new AgentLab();
    lab.replica('m1', lab.store);
    await lab.lead('m1', 1);
    const service = aService('web', { template: aTemplate(template) });
    const config = aCluster();
    const records = nodes.map((name) => aNode(name));
    await lab.commit(
      { table: 'cluster', key: 'config', value: config, expect: 0 },
      { table: 'service', key: service.id, value: service, expect: 0 },
      { table: 'revision', key: `${service.id}/1`, value: aRevision(service), expect: 0 },
      ...records.map((value): Change => ({ table: 'node', key: value.id, value, expect: 0 })),
    );
    for (const node of records) lab.hosts.push(new LabHost(lab, node));
    return lab;
  }

  replica(name: string, store: Store): Dispatch {
    const { clock } = this;
    const dispatch = new Dispatch({
      store,
      clock,
      random: seededRandom(7),
      log: silentLog,
      leadsBy: ({ replica }) => replica === name,
      mayGrant: () => true,
      unseal: (credential) => ({ ...credential, password: credential.password.replace('sealed:', '') }),
      openContent: (content) => testSeal.open(content),
      notice: (notice) => this.notices.push(notice),
    });
    this.dispatches.push(dispatch);
    this.net.serve(`${name}:7400`, dispatch);
    return dispatch;
  }

  async lead(replica: string, epoch: number): Promise<void> {
    const next = { epoch, replica, address: `${replica}:7400` };
    if (!(await this.store.takeLeadership(this.store.leadership, next))) throw new Error('another replica was first');
  }

  async commit(...changes: Change[]): Promise<void> {
    await this.store.seen(await this.store.commit(changes));
  }

  /** Assigns a fresh task of `web` to the host. */
  async assign(host: LabHost, name: string, fields: Partial<Task> = {}): Promise<TaskId> {
    const subnet = host.node.subnet.replace('.0/24', '');
    const address = `${subnet}.${10 + this.store.snapshot.count('task')}`;
    const { id: nodeId, name: nodeName } = host.node;
    const value = aTask(name, { state: 'assigned', nodeId, nodeName, address, ...fields });
    await this.commit({ table: 'task', key: value.id, value, expect: 0 });
    return value.id;
  }

  /** Edits a task as a reconciler would. */
  async edit(id: TaskId, fields: Partial<Task>): Promise<void> {
    const held = this.store.snapshot.get('task', id)!;
    await this.commit({ table: 'task', key: id, value: { ...held.value, ...fields }, expect: held.modRevision });
  }

  task(id: TaskId): Task {
    return this.store.snapshot.task(id)!;
  }
  service(): Service {
    return [...this.store.snapshot.all('service')][0]!;
  }

  async close(): Promise<void> {
    for (const host of this.hosts) await host.stop();
    for (const dispatch of this.dispatches) dispatch.close();
    await this.store.close();
  }
}
