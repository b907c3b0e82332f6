/** One replica of the control plane: the production parts as `assemble` joins them, over a memory etcd and the simulated line. */
import { foundCluster } from '#control-plane/controllers/found-cluster.ts';
import { runControllers } from '#control-plane/controllers/loop.ts';
import { Dispatch } from '#control-plane/dispatch/dispatch.ts';
import type { EventLog } from '#control-plane/events/event-log.ts';
import type { EventStream } from '#control-plane/events/event-stream.ts';
import { eventLog } from '#control-plane/events/ring-event-log.ts';
import { Leader } from '#control-plane/leader.ts';
import { confirmedMs } from '#control-plane/reconcilers/fence.ts';
import type { MemoryStore } from '#control-plane/store/memory-store.ts';
import type { Change } from '#control-plane/store/records.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type Random, seededRandom } from '#proto/kernel/random.ts';
import type { NodeId } from '#proto/model/ids.ts';
import { testSeal } from '#test/support/test-seal.ts';
import { Process } from './process.ts';
import { ViewedStore } from './viewed-store.ts';
import type { World } from './world.ts';

const foundation = { network: '10.192.0.0/11', vipNetwork: '10.224.0.0/14', domain: 'gantry.internal', nats: '' };

/** A relay ends with its session at the latest, when that is found to be dead. */
const relayLimitMs = 3_000;

/** A replica between its start and its crash. */
interface Run {
  readonly process: Process;
  /** Without the process around it: for what the world does to its line. */
  readonly store: MemoryStore;
  /** What it sees of that, and the store it commits to. */
  readonly view: ViewedStore;
  leader: Leader | undefined;
  events: EventLog | undefined;
}

export class Replica {
  readonly name: string;
  readonly address: string;
  run: Run | undefined;
  readonly #world: World;
  readonly #random: Random;
  #starts = 0;

  constructor(world: World, name: string, seed: number) {
    this.#world = world;
    this.#random = seededRandom(seed);
    this.name = name;
    this.address = `${name}:7400`;
    world.network.plug(name, name, () => true);
  }

  /** The epoch it says to lead with; undefined while it does not. */
  get epoch(): number | undefined {
    return this.run?.leader?.epoch;
  }

  start(): void {
    if (this.run) return;
    const { clock, etcd } = this.#world;
    const store = etcd.open();
    const committed = (changes: readonly Change[], epoch: number | undefined, revision: number) => {
      this.#world.committed(this.name, epoch, changes, revision);
    };
    const run: Run = {
      process: new Process(clock),
      store,
      view: new ViewedStore({ inner: store, committed }),
      leader: undefined,
      events: undefined,
    };
    this.run = run;
    this.#assemble(run).catch((error) => {
      // etcd was not to be reached: as a supervisor would, try again.
      if (!(error instanceof Fault)) this.#world.fail(error);
      else if (this.run === run) {
        this.crash();
        clock.after(1_000, () => this.start());
      }
    });
  }

  /** It dies with a commit to come, before or after that has landed; the result spares it. */
  doom(commits: number, when: 'before' | 'after'): () => void {
    const { run } = this;
    if (!run) return () => {};
    run.view.doom = { commits, when, end: () => this.run === run && this.crash() };
    return () => {
      run.view.doom = undefined;
    };
  }

  /** Its process is killed. */
  crash(): void {
    const { run } = this;
    if (!run) return;
    this.#world.network.ended(run.process);
    run.process.kill();
    this.run = undefined;
    void run.view.close();
  }

  async #assemble(run: Run): Promise<void> {
    const { network, trace } = this.#world;
    const { process } = run;
    const random = seededRandom(this.#random.int(2 ** 31));
    const log = trace.log(`${this.name}.${++this.#starts}`);
    const store = process.hold(run.view);
    await foundCluster(store, foundation, { random, log });
    const stream = process.hold<EventStream>(this.#world.events.stream);
    const events = eventLog({ store, stream, clock: process, random, log });
    run.events = events;
    this.#world.events.listens(store.snapshot.revision);
    store.subscribe((delta) => this.#world.events.seen(delta));
    const dispatch = new Dispatch({
      store,
      clock: process,
      random,
      log,
      leadsBy: (leadership) => run.leader?.wrote(leadership) ?? false,
      ...(this.#world.watched && { probe: network.probe({ machine: this.name, process }) }),
      mayGrant: () => (run.leader?.unconfirmedMs ?? Number.POSITIVE_INFINITY) <= confirmedMs,
      unseal: (credential) => credential,
      openContent: (content) => testSeal.open(content),
    });
    network.listen(this.address, { machine: this.name, process, dispatch });
    const { liveness, usage } = dispatch;
    const leader = new Leader({
      store,
      clock: process,
      log,
      self: { replica: this.name, address: this.address },
      probe: (address) => this.#probe(process, address),
      replicas: () => this.#world.addresses,
      succeeded: (by) => dispatch.succeeded(by),
      onLead: (epoch, term) => {
        trace.note(`${this.name} leads with epoch ${epoch}`);
        events.lead(term);
        const removeVolume = (node: NodeId, name: string) => this.#removeVolume(process, node, name);
        const parts = { store, clock: process, random, log, liveness, usage, removeVolume };
        runControllers(parts, epoch, term).catch((error) => this.#world.fail(error));
      },
    });
    run.leader = leader;
    await leader.start();
  }

  /** As over a relay: by the node's session with this replica, or not at all. */
  async #removeVolume(process: Process, node: NodeId, name: string): Promise<void> {
    const { hosts, network } = this.#world;
    const away = new Fault('unavailable', `node ${node} is not connected to the control plane`);
    const host = hosts.find(({ id }) => id === node);
    const removed = async () => {
      if (!host?.connected || host.dialled !== this.address) throw away;
      await network.hop(this.name, host.name);
      const { process: agent } = host;
      if (!agent?.alive || host.dialled !== this.address) throw away;
      await new Promise<void>((go) => agent.do(go));
      await host.mounts.remove(name);
      await network.hop(host.name, this.name);
    };
    await Promise.race([removed(), process.sleep(relayLimitMs).then(() => Promise.reject(away))]);
  }

  #probe(process: Process, address: string): Promise<number | undefined> {
    const { network, replicas } = this.#world;
    const target = replicas.find((replica) => replica.address === address)!;
    return new Promise((resolve, reject) => {
      const answer = async () => {
        await network.hop(this.name, target.name);
        const run = target.run;
        if (run?.process.alive) await new Promise<void>((go) => run.process.do(go));
        const epoch = run?.process.alive ? run.leader?.epoch : undefined;
        await network.hop(target.name, this.name);
        process.do(() => (run ? resolve(epoch) : reject(new Fault('unavailable', `${target.name} is not there`))));
      };
      void answer();
    });
  }
}
