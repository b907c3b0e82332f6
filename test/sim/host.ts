/** One machine of the cluster: containers, layers, network and disk are fakes, the agent on it is the production agent. */
import { registryOf } from '#control-plane/dispatch/assign.ts';
import type { NetworkWanted } from '#net/network.ts';
import { type Agent, startAgent } from '#node-agent/agent.ts';
import { Journal, type JournalFile } from '#node-agent/journal.ts';
import type { ContainerRequest, LiveSettings } from '#node-agent/runtime/runtime.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type Random, seededRandom } from '#proto/kernel/random.ts';
import type { NodeId, TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import { FakeFence } from '#test/support/fake-fence.ts';
import { FakeImages } from '#test/support/fake-images.ts';
import { FakeNetwork } from '#test/support/fake-network.ts';
import { type FakeBehaviour, FakeContainerHost, FakeRuntime } from '#test/support/fake-runtime.ts';
import { MachineMounts } from './mounts.ts';
import { Process } from './process.ts';
import { WatchdogPlace } from './watchdog.ts';
import type { World } from './world.ts';

/** How often, in percent, a container goes wrong in each way. */
export interface Mischief {
  refused: number;
  failsAtStart: number;
  diesLater: number;
  stubborn: number;
  unhealthy: number;
}

/** A command of which no container ever comes up. */
export const stuck = 'stuck';

/** A machine between power on and power off. */
interface Boot {
  readonly id: string;
  /** Monotonic, by the world's clock. */
  readonly atMs: number;
  readonly machine: Process;
  /** Guards and the lease on disk. */
  readonly fence: FakeFence;
  readonly containers: FakeContainerHost;
  readonly network: FakeNetwork;
  /** undefined: agents send beats themselves. */
  readonly watchdog: WatchdogPlace | undefined;
}

interface LiveTask {
  readonly id: TaskId;
  readonly address: string;
  readonly settings: LiveSettings;
}

/** What an agent leaves on its machine. */
export interface Remains {
  readonly containers: readonly TaskId[];
  readonly namespaces: readonly TaskId[];
  readonly layers: readonly TaskId[];
}

export class Host {
  readonly name: string;
  readonly images: FakeImages;
  mounts: MachineMounts;
  /** The record it has, or had, in the cluster. */
  node: Node;
  boot: Boot | undefined;
  agent: Agent | undefined;
  process: Process | undefined;
  journal: Journal | undefined;
  readonly #world: World;
  readonly #random: Random;
  #disk = '';
  /** As it was when the agent before this one began. */
  #oldDisk = '';
  #startDisk = '';
  #boots = 0;
  /** Of its agent. */
  starts = 0;
  /** What the agent that runs found in the kernel as it began. */
  #foundNetwork: NetworkWanted | undefined;
  /** Of its wall clock. */
  skewMs = 0;
  /** The replica that its agent has a session with, or tries to. */
  dialled = '';
  /** Its agent's main loop does not turn, though nobody stopped the process. */
  hangs = false;
  /** Added to what it takes to make a container: its disk is busy. */
  slowMs = 0;
  /** Its agent dies with the next container it starts. */
  doomed = false;
  /** Its journal once lost lines. */
  torn = false;
  #lost: FakeContainerHost['containers'] = new Map();
  #liveThen: { readonly moment: number | undefined; readonly live: readonly LiveTask[] } = {
    moment: undefined,
    live: [],
  };

  constructor(world: World, node: Node, seed: number) {
    this.#world = world;
    this.#random = seededRandom(seed);
    this.name = node.name;
    this.node = node;
    this.images = new FakeImages(world.clock, world.registry, 20);
    this.mounts = this.#emptyDisk();
    world.network.plug(node.address, this.name, () => this.boot?.machine.running === true);
  }

  get id(): NodeId {
    return this.node.id;
  }
  /** Its agent has a session with a leader. */
  get connected(): boolean {
    return this.process?.running === true && this.agent?.session.connected === true;
  }

  /** Tasks with a live process here, and the address that each answers at. */
  live(): readonly LiveTask[] {
    const { moment } = this.#world;
    if (moment === undefined || this.#liveThen.moment !== moment) this.#liveThen = { moment, live: this.#liveNow() };
    return this.#liveThen.live;
  }
  #liveNow(): readonly LiveTask[] {
    const live: LiveTask[] = [];
    if (!this.boot) return live;
    const { containers, network } = this.boot;
    for (const { request, started, exit, settings } of containers.containers.values()) {
      if (!started || exit) continue;
      live.push({ id: request.id, address: network.attachments.get(request.id)?.address ?? '', settings });
    }
    return live;
  }

  async remains(): Promise<Remains> {
    const { containers, network } = this.boot!;
    return {
      containers: [...containers.containers.keys()],
      namespaces: [...network.attachments.keys()],
      layers: [...(await this.images.rootfs())],
    };
  }

  powerOn(): void {
    if (this.boot) return;
    const { clock, network } = this.#world;
    const machine = new Process(clock);
    const host = this;
    const containers = new (class extends FakeContainerHost {
      override start(container: Parameters<FakeContainerHost['start']>[0]): void {
        super.start(container);
        host.#world.started(host, container.request.id);
        if (host.doomed) host.crashAgent();
        const { address } = host.boot!.network.attachments.get(container.request.id) ?? {};
        // Somebody talks to a third of all tasks, and never hangs up.
        if (address) host.boot!.network.open.set(address, host.#random.int(3) === 0 ? 1 : 0);
      }
      override signal(container: Parameters<FakeContainerHost['signal']>[0], signal: number): void {
        host.#world.signalled(host, container.request.id);
        super.signal(container, signal);
      }
    })(machine);
    for (const [id, lost] of this.#lost) containers.containers.set(id, lost);
    const id = `${this.name}-boot-${++this.#boots}`;
    const fence = new FakeFence(machine, containers);
    const watchdog = this.#world.watched ? this.#watchdogPlace(machine, fence) : undefined;
    this.boot = { id, atMs: clock.monotonic(), machine, containers, fence, network: new FakeNetwork(), watchdog };
    network.reset(this.name);
    this.startAgent();
  }

  /** The plug is pulled. What lay in the disk's cache is lost with it. */
  powerOff(): void {
    if (!this.boot?.machine.alive) return;
    const { machine, containers, watchdog } = this.boot;
    // With what its kernel still had to send for processes that have ended.
    this.#world.network.vanished(this.name);
    watchdog?.vanish();
    this.#endProcess();
    machine.kill();
    containers.reboot();
    this.#lost = containers.containers;
    this.boot = undefined;
  }

  /** The agent's process is killed; its containers live on. */
  crashAgent(): void {
    this.doomed = false;
    if (this.process) this.#world.network.ended(this.process);
    this.#endProcess();
  }

  #endProcess(): void {
    this.process?.kill();
    this.boot?.watchdog?.agentEnded();
    this.hangs = false;
    this.process = undefined;
    this.agent = undefined;
  }

  /** What its agent has put into the kernel since it began. */
  get networkPut(): NetworkWanted | undefined {
    const wanted = this.boot?.network.wanted;
    return wanted === this.#foundNetwork ? undefined : wanted;
  }

  startAgent(): void {
    if (!this.boot || this.process) return;
    const { clock, network, trace } = this.#world;
    const boot = this.boot;
    this.#foundNetwork = boot.network.wanted;
    this.#oldDisk = this.#startDisk;
    this.#startDisk = this.#disk;
    const process = new Process(clock);
    process.skewMs = this.skewMs;
    this.process = process;
    // On a machine that stands still nothing begins either.
    if (!boot.machine.running) process.pause();
    const party = { machine: this.name, process };
    const runtime = new FakeRuntime({
      clock: boot.machine,
      host: boot.containers,
      behaviour: (request) => this.#behaviour(request),
    });
    const journal = new Journal(this.#file());
    this.journal = journal;
    const { node } = this;
    const starting = startAgent({
      clock: process,
      random: seededRandom(this.#random.int(2 ** 31)),
      log: trace.log(`${this.name}.${++this.starts}`),
      journal,
      runtime: process.hold(runtime),
      images: process.hold(this.images),
      network: process.hold(boot.network),
      mounts: process.hold(this.mounts),
      logs: { path: (task) => `/logs/${task}`, follow() {}, drop: async () => {} },
      bootId: boot.id,
      registryOf,
      transport: {
        keepWarm() {},
        connect: (address) => {
          this.dialled = address;
          return network.transport(party, node.id).connect(address);
        },
      },
      fence: process.hold(boot.fence),
      heartbeat:
        boot.watchdog?.heartbeat(process, this.starts) ??
        network.heartbeat(party, node.id, (untilMs) => boot.fence.renew(untilMs)),
      addresses: this.#world.addresses,
      describe: () => ({ ...node, bootId: boot.id }),
      removeVolume: (name) => this.mounts.remove(name),
      // biome-ignore lint/correctness/useYield: nobody reads logs in a simulation.
      readLog: async function* () {
        throw new Fault('unsupported', 'there are no logs in a simulation');
      },
    });
    starting.then(
      (agent) => {
        if (process.alive) this.agent = agent;
      },
      (error) => this.#world.fail(error),
    );
  }

  #watchdogPlace(machine: Process, fence: FakeFence): WatchdogPlace {
    const { network, addresses } = this.#world;
    const partyOf = (process: Process) => ({ machine: this.name, process });
    return new WatchdogPlace({
      clock: machine,
      addresses,
      dial: (process, address) => network.beatLine(partyOf(process), this.node.id, address),
      probe: (process) => network.probe(partyOf(process)),
      renew: (untilMs) => fence.renew(untilMs),
      statOf: (pid) => {
        if (!this.process?.alive || pid !== this.starts) return undefined;
        return { state: this.process.running || this.hangs ? 'R' : 'T', startTicks: pid };
      },
      ended: (process) => network.ended(process),
    });
  }

  /** A new member: the machine keeps what runs on it, but its agent knows nothing any more. */
  joinAs(node: Node): void {
    this.crashAgent();
    this.mounts = this.#emptyDisk();
    this.node = node;
    this.#disk = '';
    this.torn = false;
    this.startAgent();
  }

  #emptyDisk(): MachineMounts {
    return new MachineMounts({
      recordOf: (name) => this.#world.etcd.get('volume', name)?.value,
      mounted: (task, volume, found) => this.#world.mounted(this, task, volume, found),
    });
  }

  #file(): JournalFile {
    return {
      read: () => this.#disk,
      append: (text) => {
        this.#disk += text;
      },
      replace: (text) => {
        this.#disk = text;
      },
    };
  }

  /** The last lines of the journal did not reach the disk; the last of them perhaps in part. */
  tearDisk(bytes: number): void {
    this.torn = true;
    this.#disk = this.#disk.slice(0, Math.max(0, this.#disk.length - bytes));
  }

  /** Its disk is empty, or what it was some starts ago: a backup, or a snapshot of the machine. */
  replaceDisk(by: 'nothing' | 'backup'): void {
    this.torn = true;
    this.#disk = by === 'nothing' ? '' : this.#oldDisk;
  }

  /** The whole machine stands still, as a virtual one does while it is moved; the result lets it go on. */
  suspend(): () => void {
    const { boot } = this;
    const watchdog = boot?.watchdog?.process;
    this.process?.pause();
    watchdog?.pause();
    boot?.machine.pause();
    return () => {
      // Whether guards or what they guard goes on first is for the kernel to say: here it is them.
      boot?.fence.look();
      boot?.machine.resume();
      watchdog?.resume();
      this.process?.resume();
    };
  }

  #behaviour(request: ContainerRequest): FakeBehaviour {
    const random = this.#random;
    const { mischief, usageOf, ill } = this.#world;
    const happens = (percent: number) => random.int(100) < percent;
    const times: FakeBehaviour = {
      createMs: 20 + random.int(200) + this.slowMs,
      startMs: 1 + random.int(50),
      stopMs: 1 + random.int(400),
      ignoresSignals: happens(mischief.stubborn),
      exec: () => ({ exitCode: happens(mischief.unhealthy) || ill.has(request.id) ? 1 : 0 }),
      get stats() {
        return usageOf(request.id);
      },
    };
    if (request.container.command[0] === stuck)
      return { ...times, createFault: new Fault('unavailable', `no container for ${request.id} yet`) };
    if (happens(mischief.refused)) {
      const code = (['invalid', 'unavailable', 'exhausted'] as const)[random.int(3)]!;
      return { ...times, createFault: new Fault(code, `no container for ${request.id}`) };
    }
    if (happens(mischief.failsAtStart)) {
      if (happens(30)) return { ...times, startFault: new Fault('invalid', 'no such command') };
      return { ...times, exitAfterMs: 1 + random.int(20), exitCode: 1 };
    }
    // Work that ends, as a job's, and does not always succeed.
    const ends = request.container.command[0] === 'work';
    if (ends) return { ...times, exitAfterMs: 50 + random.int(900), exitCode: happens(mischief.diesLater) ? 2 : 0 };
    if (!happens(mischief.diesLater)) return times;
    return { ...times, exitAfterMs: 100 + random.int(8_000), exitCode: random.int(3) > 0 ? 2 : 0 };
  }
}
