/** A node that runs the agent's production worker on a fake runtime, image store and network; its machine can lose power, its line can be cut. */
import { registryOf } from '#control-plane/dispatch/assign.ts';
import { Journal } from '#node-agent/journal.ts';
import type { ContainerRequest } from '#node-agent/runtime/runtime.ts';
import { Worker } from '#node-agent/worker.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type Log, silentLog } from '#proto/kernel/log.ts';
import { seededRandom } from '#proto/kernel/random.ts';
import type { AssignmentItem } from '#proto/model/assignment.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import type { NodeId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { TaskStatus } from '#proto/model/task.ts';
import { assignmentToWire, toWire } from '#proto/model/wire.ts';
import { FakeImages } from '#test/support/fake-images.ts';
import { FakeNetwork } from '#test/support/fake-network.ts';
import { type FakeBehaviour, FakeContainerHost, FakeRuntime } from '#test/support/fake-runtime.ts';
import type { AgentParts, LiveTask, SetMessage, WorldAgent } from './agent.ts';

const cluster: ClusterConfig = {
  id: 'sim',
  network: '10.192.0.0/11',
  vipNetwork: '10.224.0.0/14',
  natsUrl: '',
  domain: 'gantry.internal',
};

/** What is lost with the power. */
interface Machine {
  readonly worker: Worker;
  readonly host: FakeContainerHost;
  readonly network: FakeNetwork;
}

export class WorkerAgent implements WorldAgent {
  readonly id: NodeId;
  readonly #parts: AgentParts;
  readonly #log: Log;
  cut = false;
  delayMs = 0;
  #disk = '';
  #boots = 0;
  #machine: Machine | undefined;
  #reportAtMs = 0;

  constructor(id: NodeId, parts: AgentParts, log: Log = silentLog) {
    this.id = id;
    this.#parts = parts;
    this.#log = log.with(id.slice(0, 2));
    this.boot();
  }

  get up(): boolean {
    return this.#machine !== undefined;
  }
  get reachable(): boolean {
    return this.up && !this.cut;
  }

  live(): LiveTask[] {
    const { host, network } = this.#machine ?? {};
    return [...(host?.containers.values() ?? [])]
      .filter((container) => container.started && !container.exit)
      .map(({ request }) => ({ id: request.id, address: network?.attachments.get(request.id)?.address ?? '' }));
  }

  receive({ items, node, revision, epoch }: SetMessage): void {
    const worker = this.#machine?.worker;
    if (!worker || this.cut) return;
    worker.welcome({
      session: 1,
      epoch,
      node: toWire<Node>(node),
      cluster: toWire(cluster),
      heartbeatPeriodMs: 200,
    } as Parameters<Worker['welcome']>[0]);
    worker.began();
    const put = items.map((item: AssignmentItem) => assignmentToWire(item));
    worker.take({ epoch, revision, full: true, more: false, put, remove: [] });
  }

  greet(): void {
    if (!this.reachable) return;
    this.#parts.connect(this.id);
    this.#say(this.#machine!.worker.statuses());
  }

  crash(): void {
    const machine = this.#machine;
    this.#machine = undefined;
    machine?.worker.close();
  }

  boot(): void {
    if (this.#machine) return;
    const { clock, random } = this.#parts;
    const host = new FakeContainerHost(clock);
    const network = new FakeNetwork();
    const boot = ++this.#boots;
    const worker = new Worker(
      {
        clock,
        random: seededRandom(random.int(2 ** 31)),
        log: this.#log,
        journal: new Journal({
          read: () => this.#disk,
          append: (text) => {
            if (boot === this.#boots) this.#disk += text;
          },
          replace: (text) => {
            if (boot === this.#boots) this.#disk = text;
          },
        }),
        runtime: new FakeRuntime({ clock, host, behaviour: (request) => this.#behaviour(request) }),
        images: new FakeImages(clock),
        network,
        mounts: { prepare: async () => [], release: async () => {}, held: async () => [] },
        logs: { path: (task) => `/logs/${task}`, follow: () => {}, drop: async () => {} },
        bootId: `boot-${boot}`,
        registryOf,
      },
      {
        status: (status) => {
          if (boot === this.#boots && this.up) this.#say([status]);
        },
        applied: () => {},
      },
    );
    this.#machine = { worker, host, network };
    void worker.start().then(() => this.greet());
    this.#beat(boot);
  }

  heal(): void {
    if (!this.cut) return;
    this.cut = false;
    this.greet();
  }

  killOne(): void {
    const live = this.live();
    const victim = live[this.#parts.random.int(Math.max(1, live.length))];
    if (victim) this.#machine!.host.end(victim.id, 137);
  }

  #behaviour(_request: ContainerRequest): FakeBehaviour {
    const { random, mischief } = this.#parts;
    const times = { createMs: 20 + random.int(200), startMs: 1 + random.int(50), stopMs: 1 + random.int(400) };
    if (random.int(100) < mischief.rejected) return { ...times, createFault: new Fault('invalid', 'no such command') };
    if (random.int(100) < mischief.failsAtStart) return { ...times, exitAfterMs: 1 + random.int(20), exitCode: 1 };
    if (random.int(100) >= mischief.diesLater) return times;
    return { ...times, exitAfterMs: 100 + random.int(8_000), exitCode: random.int(3) > 0 ? 2 : 0 };
  }

  #beat(boot: number): void {
    if (!this.up || boot !== this.#boots) return;
    const { clock, random, beat } = this.#parts;
    if (!this.cut) clock.after(this.delayMs + random.int(20), () => beat(this.id));
    clock.after(200, () => this.#beat(boot));
  }

  #say(statuses: readonly TaskStatus[]): void {
    const { clock, random, report } = this.#parts;
    if (!this.reachable) return;
    this.#reportAtMs = Math.max(this.#reportAtMs, clock.monotonic() + this.delayMs + 1 + random.int(10));
    clock.after(this.#reportAtMs - clock.monotonic(), () => {
      if (this.reachable) report(this.id, statuses);
    });
  }
}
