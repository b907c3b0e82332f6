/** Makes this node hold what it was given: a runner for each task, the network of the newest set, and nothing that nobody asked for. */
import type { Attachment, Network, NetworkWanted } from '#net/network.ts';
import type { AssignmentSet, Welcome } from '#proto/gen/gantry/v1/agent.ts';
import type { Clock } from '#proto/kernel/clock.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { Log } from '#proto/kernel/log.ts';
import type { Random } from '#proto/kernel/random.ts';
import { type AssignmentItem, assignmentKey, segmentLabel, type TaskAssignment } from '#proto/model/assignment.ts';
import type { Credential } from '#proto/model/cluster.ts';
import { type TaskId, taskId } from '#proto/model/ids.ts';
import { sharedNetworkOf } from '#proto/model/network.ts';
import { compareStates, isTerminal, type TaskStatus } from '#proto/model/task.ts';
import { clusterFromWire, nodeFromWire } from '#proto/model/wire.ts';
import type { Images } from './images/images.ts';
import { Inventory } from './inventory.ts';
import type { Journal, Membership } from './journal.ts';
import type { ContainerExit, ContainerState, Runtime } from './runtime/runtime.ts';
import type { TaskWanted } from './task/decide.ts';
import { Drain } from './task/drain.ts';
import type { ProbeRecord } from './task/health.ts';
import { type ListensOn, listensAsAwaited } from './task/listening.ts';
import type { ConnectFrom } from './task/network-probes.ts';
import { Prober } from './task/prober.ts';
import { type RunnerParts, TaskRunner } from './task/runner.ts';
import { type Mounts, removeRemains, type Steps, stepTable } from './task/steps.ts';
import { awaitContents } from './task/task-contents.ts';
import {
  type Asked,
  attachmentOf,
  hasOwnNetwork,
  nameOfOwner,
  type Owner,
  placeOf,
  sharesNetworkOf,
} from './task/task-network.ts';
import { type Measured, measuredOf } from './usage.ts';
import { unlessAborted, Waiting } from './waiting.ts';
import type { Fence } from './watchdog/fence.ts';

/** Where the logs of tasks go. */
export interface TaskLogs {
  /** The path that conmon writes to. */
  path(task: TaskId): string;
  /** It is being written, or was: ship it. */
  follow(assignment: TaskAssignment, membership: Membership): void;
  /** The task is gone from this node: resolves when the rest is shipped and the file deleted. */
  drop(task: TaskId): Promise<void>;
}

export interface WorkerParts {
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Log;
  readonly journal: Journal;
  readonly runtime: Runtime;
  readonly images: Images;
  readonly network: Network;
  readonly mounts: Mounts;
  readonly logs: TaskLogs;
  readonly fence: Fence;
  /** Of this boot of the machine. */
  readonly bootId: string;
  /** The registry that an image reference means, as credentials name it. */
  readonly registryOf: (image: string) => string;
  readonly stepDone?: RunnerParts['stepDone'];
  readonly listensOn?: ListensOn;
  readonly connectFrom?: ConnectFrom;
}

/** Told what happens, set by the session's owner. */
export interface WorkerEvents {
  status(status: TaskStatus): void;
  applied(revision: number): void;
}

const networkRetryMs = 1_000;
const sweepRetryMs = 1_000;

export class Worker {
  readonly #parts: WorkerParts;
  readonly #events: WorkerEvents;
  readonly #inventory: Inventory;
  readonly #runners = new Map<TaskId, TaskRunner>();
  readonly #attachments = new WeakMap<TaskRunner['wanted'], Attachment>();
  /** Containers that the journal does not know: those of tasks that are still assigned are adopted when that is heard. */
  readonly #unknown = new Map<TaskId, ContainerState>();
  readonly #steps: Steps;
  readonly #prober: Prober;
  #membership: Membership | undefined;
  /** For a task of this node to begin to run, or to end, and for a config or secret to come. */
  readonly #waiting = new Waiting();
  #networkDirty = false;
  #networkBusy = false;
  /** Called when the next application has been made, or has failed. */
  #networkWaiters: (() => void)[] = [];
  #networkStands: Promise<void>;
  #networkStood!: () => void;
  #swept = false;
  #closed = false;
  #unsubscribe: (() => void)[] = [];

  constructor(parts: WorkerParts, events: WorkerEvents) {
    this.#parts = parts;
    this.#events = events;
    const { journal, bootId } = parts;
    if (journal.bootId !== bootId) this.#rebooted(journal.bootId !== undefined);
    this.#inventory = new Inventory(journal.items());
    this.#membership = parts.journal.membership;
    this.#networkStands = new Promise((resolve) => {
      this.#networkStood = resolve;
    });
    this.#prober = new Prober(parts);
    this.#steps = stepTable({
      images: parts.images,
      runtime: parts.runtime,
      network: parts.network,
      mounts: parts.mounts,
      fence: parts.fence,
      credential: (image) => this.#credential(image),
      contents: (asked) =>
        awaitContents({ content: (ref) => this.#inventory.content(ref), waiting: this.#waiting }, asked),
      logPath: (task) => parts.logs.path(task),
      withdrawn: () => this.#withdrawn(),
      drain: new Drain(parts),
      addressFree: (address, by, signal) => this.#addressFree(address, by, signal),
      owner: (asked) => this.#owner(asked),
      place: () => placeOf(this.#membership!, this.#inventory.networks()),
      vipOf: (project, name) => this.#inventory.vipOf(project, name),
      clock: parts.clock,
    });
  }

  /** Goes on from the journal and from what the runtime still has; needs no control plane. */
  async start(): Promise<void> {
    const { runtime } = this.#parts;
    const containers = new Map<TaskId, ContainerState>();
    for (const container of await runtime.list()) containers.set(container.id, container);
    const assigned = new Map(this.#inventory.tasks().map((assignment) => [assignment.task.id, assignment]));
    for (const assignment of assigned.values()) this.#adopt(assignment, containers.get(assignment.task.id));
    for (const [id, container] of containers) if (!assigned.has(id)) this.#unknown.set(id, container);
    this.#endSharers();
    // Exits from before this listener are delivered to it too.
    this.#unsubscribe.push(runtime.onExit((id, exit) => this.#exited(id, exit)));
    this.#networkChanged();
  }

  #exited(id: TaskId, exit: ContainerExit): void {
    const unknown = this.#unknown.get(id);
    if (unknown) this.#unknown.set(id, { ...unknown, status: exit.lost ? 'lost' : 'exited', exit });
    this.#runners.get(id)?.exited(exit);
  }

  /**
   * Every task of the boot before has ended with it. The last lines of the journal may be lost, and with them that a task had
   * ended long before: one of which nothing was said is begun only when the control plane still assigns it.
   */
  #rebooted(known: boolean): void {
    const { journal, clock, bootId, log } = this.#parts;
    if (known) log.warn('the machine has been rebooted, its tasks have ended', { count: journal.statuses().length });
    for (const status of journal.statuses()) {
      if (isTerminal(status.state)) continue;
      const now = clock.now();
      const error = 'host rebooted';
      journal.setStatus({ ...status, state: 'failed', message: error, error, pid: 0, atMs: now, finishedAtMs: now });
    }
    const told = new Set(journal.statuses().map(({ taskId }) => taskId));
    const silent = journal.items().filter((item) => item.kind === 'task' && !told.has(item.task.id));
    journal.setItems([], silent.map(assignmentKey));
    journal.setBoot(bootId);
  }

  #adopt(assignment: TaskAssignment, container: ContainerState | undefined): void {
    const status = this.#parts.journal.status(assignment.task.id);
    const runner = this.#runner(assignment, { status, container });
    if (!container || !status || isTerminal(status.state)) {
      runner.resume();
      return;
    }
    this.#parts.log.info('adopted a task', { task: assignment.task.id, state: status.state, pid: container.pid });
    const { image } = assignment.template.container;
    // Its config, for health check and stop signal; no registry is asked.
    const request = {
      reference: image,
      digest: status.imageDigest || assignment.imageDigest,
      pullPolicy: 'never',
    } as const;
    this.#parts.images.ensure(request).then(
      (found) => runner.resume(found),
      () => runner.resume(),
    );
  }

  #runner(assignment: TaskAssignment, known: ConstructorParameters<typeof TaskRunner>[2] = {}): TaskRunner {
    const { clock, random, log } = this.#parts;
    const { id } = assignment.task;
    const runner = new TaskRunner(
      {
        clock,
        random,
        log,
        steps: this.#steps,
        prober: this.#prober,
        fence: this.#parts.fence,
        report: (status) => this.#report(status),
        running: (wanted) => {
          if (this.#membership) this.#parts.logs.follow(wanted, this.#membership);
          this.#waiting.happened();
        },
        forgotten: (task) => void this.#forget(task),
        listens: ({ task, template }, pid) => {
          const endpoint = this.#inventory.endpoint(task.serviceId);
          return listensAsAwaited(endpoint, template.container, () => this.#parts.listensOn?.(pid));
        },
        stepDone: this.#parts.stepDone,
      },
      { ...assignment, removed: false },
      known,
    );
    this.#runners.set(id, runner);
    return runner;
  }

  #report(status: TaskStatus): void {
    if (this.#closed) return;
    this.#parts.journal.setStatus(status);
    this.#events.status(status);
    if (!isTerminal(status.state)) return;
    this.#networkChanged();
    this.#waiting.happened();
    // When what is being taken in has been taken in whole.
    void Promise.resolve().then(() => this.#endSharers());
  }

  /** The running task whose network another one is to have. */
  async #owner({ wanted, signal, say }: Asked): Promise<Owner> {
    for (let said = false; ; ) {
      const owner = this.#ownerOf(wanted);
      if (!owner) {
        throw new Fault('unavailable', `${nameOfOwner(wanted)}, whose network it is to have, is not on this node`);
      }
      if (owner.status.state === 'running') return { wanted: owner.wanted, pid: owner.status.pid };
      if (!said) say(`waits for ${nameOfOwner(wanted)}, whose network it is to have`);
      said = true;
      await this.#waiting.next(signal);
    }
  }

  #ownerOf(wanted: TaskWanted): TaskRunner | undefined {
    const runners = [...this.#runners.values()];
    return runners.find((runner) => runner.networked && sharesNetworkOf(wanted, runner.wanted.task));
  }

  /** A task has no network any more when that of the task it shared has gone: the next one of its seat has the next one's. */
  #endSharers(): void {
    for (const runner of this.#runners.values()) {
      const { wanted, status } = runner;
      if (sharedNetworkOf(wanted.template.networkMode) === undefined) continue;
      // Before that it has none yet, and waits for it.
      const joined = compareStates(status.state, 'ready') >= 0 && !isTerminal(status.state);
      if (!joined || this.#ownerOf(wanted)) continue;
      runner.lose(`${nameOfOwner(wanted)}, whose network it has, has ended`);
    }
  }

  /** Its process, network and layers are gone; its log goes when it is kept elsewhere, and with it what we know of it. */
  async #forget(task: TaskId): Promise<void> {
    const runner = this.#runners.get(task);
    if (!runner) return;
    if (this.#membership) this.#parts.logs.follow(runner.wanted, this.#membership);
    try {
      await this.#parts.logs.drop(task);
    } catch (error) {
      this.#parts.log.warn("a task's log was not removed", { task, error });
    }
    if (this.#closed) return;
    this.#parts.journal.forget(task);
    this.#runners.delete(task);
  }

  /** What the node is in the cluster, at the begin of each session and when it changes. */
  welcome(welcome: Welcome): void {
    if (!welcome.node || !welcome.cluster) return;
    this.#membership = { node: nodeFromWire(welcome.node), cluster: clusterFromWire(welcome.cluster) };
    this.#parts.journal.setMembership(this.#membership);
    this.#networkChanged();
  }

  /** A session begins; returns digests of what is held, for its Hello. */
  began(): Buffer {
    this.#inventory.restart();
    return this.#inventory.held();
  }

  take(set: AssignmentSet): void {
    const change = this.#inventory.take(set);
    if (!change) return;
    if (change.unreadable.length > 0)
      this.#parts.log.warn('the control plane says what this version cannot read: upgrade the agent', {
        why: change.unreadable.slice(0, 5).join(', '),
        count: change.unreadable.length,
      });
    // Logins, configs and secrets stay off the disk, and an assignment stays on it until its task is forgotten.
    const put = change.put.filter((item) => !isConfidential(item));
    this.#parts.journal.setItems(
      put,
      change.removed.filter((key) => !key.startsWith('task/')),
    );
    // Also where it says what we cannot read: whoever sent it waits for the word that we are as far.
    let network = change.full || change.unreadable.length > 0;
    for (const item of change.put) {
      if (item.kind === 'task') this.#assign(item);
      if (!isConfidential(item)) network = true;
    }
    for (const key of change.removed) {
      if (key.startsWith('task/')) this.#unassign(taskId(key.slice('task/'.length)));
      network = true;
    }
    if (change.full) {
      this.#unassignStrays();
      this.#unknown.clear();
    }
    if (change.put.some((item) => item.kind === 'content')) this.#waiting.happened();
    if (network) this.#networkChanged();
    if (change.full && !this.#swept) {
      this.#swept = true;
      void this.#sweep();
    }
  }

  #assign(assignment: TaskAssignment): void {
    const { id } = assignment.task;
    const runner = this.#runners.get(id) ?? this.#runner(assignment, { container: this.#unknown.get(id) });
    this.#unknown.delete(id);
    const { task, template, imageDigest, links } = assignment;
    runner.update({ task, template, imageDigest, links, removed: false });
  }

  #unassign(id: TaskId): void {
    const runner = this.#runners.get(id);
    runner?.update({ ...runner.wanted, removed: true });
  }

  /** Runners from the journal that the full set does not name. */
  #unassignStrays(): void {
    for (const [id, runner] of this.#runners) {
      if (!this.#inventory.task(id) && !runner.wanted.removed) this.#unassign(id);
    }
  }

  /** Removes what is here and belongs to no task: only now, with the full set, is that known. */
  async #sweep(): Promise<void> {
    const { clock, runtime, network, images, mounts, log } = this.#parts;
    let failed = false;
    const failure = (error: unknown, task?: TaskId) => {
      failed = true;
      log.warn('strays were not all removed, trying again', { error, ...(task && { task }) });
    };
    try {
      const found = new Set<TaskId>((await runtime.list()).map((container) => container.id));
      for (const id of await network.attached()) found.add(id);
      for (const id of await images.rootfs()) found.add(id);
      for (const id of await mounts.held()) found.add(id);
      for (const id of found) {
        if (this.#closed) return;
        if (this.#runners.has(id)) continue;
        log.warn('removing what no assignment names', { task: id });
        await removeRemains(this.#parts, id).catch((error) => failure(error, id));
      }
    } catch (error) {
      failure(error);
    }
    if (!failed) return;
    await clock.sleep(sweepRetryMs);
    if (!this.#closed) await this.#sweep();
  }

  #credential(image: string): Credential | undefined {
    return this.#inventory.credential(this.#parts.registryOf(image));
  }

  async #addressFree(address: string, by: TaskId, signal: AbortSignal): Promise<void> {
    if (address === '') {
      throw new Fault('unavailable', 'the task has no address on the cluster network yet', {
        remedy: 'the control plane gives it one when the node has a subnet',
      });
    }
    await unlessAborted(this.#networkStands, signal);
    for (const [id, runner] of this.#runners) {
      if (id === by || runner.wanted.task.address !== address || !hasOwnNetwork(runner.wanted)) continue;
      if (runner.networked) {
        // A leader that never heard of the other task, for its record is gone, may give its address away before it has ended.
        throw new Fault('unavailable', `address ${address} is still that of task ${id}, which has not ended`);
      }
      if (runner.remains) await this.#parts.network.detach(id);
    }
  }

  #networkChanged(): void {
    this.#networkDirty = true;
    if (!this.#networkBusy) void this.#applyNetwork();
  }

  /** Also where it could not be applied: a task must be stopped all the same. */
  async #withdrawn(): Promise<void> {
    // What is being taken in is taken in whole.
    await Promise.resolve();
    if (this.#networkBusy) await new Promise<void>((resolve) => this.#networkWaiters.push(resolve));
  }

  /** One application at a time, each of the newest; what changes meanwhile is one more. */
  async #applyNetwork(): Promise<void> {
    this.#networkBusy = true;
    // The changes of this turn are one.
    await Promise.resolve();
    while (this.#networkDirty && !this.#closed) {
      this.#networkDirty = false;
      const waiters = this.#networkWaiters.splice(0);
      const wanted = this.#networkWanted();
      if (!wanted) break;
      try {
        await this.#parts.network.apply(wanted);
        this.#networkStood();
        if (this.#inventory.loaded) this.#events.applied(wanted.revision);
        for (const go of waiters) go();
      } catch (error) {
        this.#parts.log.warn('the network was not applied, trying again', { error, revision: wanted.revision });
        for (const go of waiters) go();
        this.#networkDirty = true;
        await this.#parts.clock.sleep(networkRetryMs);
      }
    }
    this.#networkBusy = false;
    for (const go of this.#networkWaiters.splice(0)) go();
  }

  #networkWanted(): NetworkWanted | undefined {
    if (!this.#membership) return undefined;
    const { node, cluster } = this.#membership;
    if (node.subnet === '') return undefined;
    const attachments = [...this.#runners.values()]
      .filter((runner) => runner.networked && runner.wanted.task.address !== '' && hasOwnNetwork(runner.wanted))
      .map((runner) => this.#attachmentOf(runner.wanted));
    return {
      revision: this.#inventory.revision,
      nodeId: node.id,
      address: node.address,
      subnet: node.subnet,
      network: cluster.network,
      vipNetwork: cluster.vipNetwork,
      network6: cluster.network6,
      encapsulation: cluster.encapsulation,
      encryption: cluster.encryption,
      domain: cluster.domain,
      link: node.link,
      address6: node.address6,
      segment: node.labels[segmentLabel] ?? '',
      peers: this.#inventory.peersOf(node.id),
      endpoints: this.#inventory.endpoints(),
      networks: this.#inventory.networks(),
      attachments,
    };
  }

  /** The same object as long as the task is wanted as it was: then nothing of it is planned again. */
  #attachmentOf(wanted: TaskRunner['wanted']): Attachment {
    const attachment = this.#attachments.get(wanted) ?? attachmentOf(wanted);
    this.#attachments.set(wanted, attachment);
    return attachment;
  }

  /** The newest word about each task, for metrics and relays. */
  statuses(): TaskStatus[] {
    return [...this.#runners.values()].map((runner) => runner.status);
  }

  running(): TaskId[] {
    return [...this.#runners].filter(([, runner]) => runner.status.state === 'running').map(([id]) => id);
  }

  checks(task: TaskId): readonly ProbeRecord[] {
    return this.#runners.get(task)?.probes ?? [];
  }

  measured(): readonly Measured[] {
    return measuredOf(this.#runners.values(), (id) => this.#inventory.endpoint(id));
  }

  /** Stops deciding; containers and network stay as they are. */
  close(): void {
    this.#closed = true;
    for (const unsubscribe of this.#unsubscribe) unsubscribe();
    for (const runner of this.#runners.values()) runner.close();
  }
}

/** In memory only. */
function isConfidential({ kind }: AssignmentItem): boolean {
  return kind === 'credential' || kind === 'content';
}
