/** A Network in memory, for the agent's tests and the simulator: it remembers what it was asked, and can be told to fail. */
import type { Attachment, Network, NetworkRepair, NetworkWanted } from '#net/network.ts';
import { containsAddress, gatewayOf } from '#net/plan/cidr.ts';
import type { Probe, ProbeFact } from '#proto/gen/gantry/v1/probe.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { ServiceId, TaskId } from '#proto/model/ids.ts';

export class FakeNetwork implements Network {
  /** The last wish that was applied. */
  wanted: NetworkWanted | undefined;
  /** The last wish could not be applied. */
  behind = false;
  readonly attachments = new Map<TaskId, Attachment>();
  /** What `connections` says of an address; 0 for one that is not in here. */
  readonly open = new Map<string, number>();
  /** What `traffic` says next. */
  readonly calls = new Map<ServiceId, number>();
  readonly #callListeners = new Set<(service: ServiceId) => void>();
  readonly #listeners = new Set<(repair: NetworkRepair) => void>();
  #failure: unknown;
  #held: Promise<void> = Promise.resolve();
  #closed = false;

  /** Every call of apply, attach and detach fails with `error` from now on; undefined: none does. */
  fail(error: unknown): void {
    this.#failure = error;
  }

  /** Nothing is applied any more until the result is called. */
  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#held = promise;
    return resolve;
  }

  /** Tells the listeners of a repair. */
  repair(message: string): void {
    for (const listener of this.#listeners) listener({ message, kind: 'route' });
  }

  /** Somebody calls the service, which has no task. */
  call(service: ServiceId): void {
    for (const listener of this.#callListeners) listener(service);
  }

  async apply(wanted: NetworkWanted): Promise<void> {
    await this.#held;
    this.behind = true;
    this.#check();
    this.behind = false;
    this.wanted = wanted;
  }

  async attach(attachment: Attachment) {
    this.#check();
    if (!this.wanted) throw new Fault('precondition', 'this node has no network yet', { remedy: 'apply first' });
    if (!containsAddress(this.wanted.subnet, attachment.address)) {
      throw new Fault('invalid', `address ${attachment.address} is not in this node's subnet ${this.wanted.subnet}`);
    }
    this.attachments.set(attachment.taskId, attachment);
    const gateway = gatewayOf(this.wanted.subnet);
    return { netnsPath: `/run/gantry/netns/${attachment.taskId}`, gateway, dns: gateway };
  }

  async detach(taskId: TaskId): Promise<void> {
    this.#check();
    this.attachments.delete(taskId);
  }

  async attached(): Promise<readonly TaskId[]> {
    return [...this.attachments.keys()];
  }

  async connections(addresses: readonly string[]): Promise<ReadonlyMap<string, number>> {
    this.#check();
    return new Map(addresses.map((address) => [address, this.open.get(address) ?? 0]));
  }

  async traffic(): Promise<ReadonlyMap<ServiceId, number>> {
    this.#check();
    const calls = new Map(this.calls);
    this.calls.clear();
    return calls;
  }

  /** Nothing can be looked at in memory: says so for each. */
  async examine(probes: readonly Probe[], say: (fact: ProbeFact) => void): Promise<void> {
    const fact = { hop: 'network', verdict: 'good', says: 'in memory', remedy: '', subject: '', wanted: '', seen: '' };
    for (const { id } of probes) say({ probe: id, ...fact });
  }

  onCall(listener: (service: ServiceId) => void): () => void {
    this.#callListeners.add(listener);
    return () => this.#callListeners.delete(listener);
  }

  onRepair(listener: (repair: NetworkRepair) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  async close(): Promise<void> {
    this.#closed = true;
  }

  #check(): void {
    if (this.#closed) throw new Fault('cancelled', 'the network is closed');
    if (this.#failure !== undefined) throw this.#failure;
  }
}
