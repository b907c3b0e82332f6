/** Addresses out of the networks' own subnets: as with primary ones, what is held is known before anything is given, and what was freed rests. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { formatAddress, parseCidr, sizeOf } from '#net/plan/cidr.ts';
import { nextWithin } from '#net/plan/ipam.ts';
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';
import type { ClusterNetwork, NetworkAttachment, NetworkSubnet, TaskAddress } from '#proto/model/network.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import { isTerminal, occupiesNode, type Task } from '#proto/model/task.ts';
import { addressRestMs } from './addresses.ts';

interface Pool {
  /** By address; those of orphans too, while their node has not come back. */
  readonly held: Map<string, TaskId>;
  /** Free from this instant (wall clock ms), in the order in which they were freed. */
  readonly resting: Map<string, number>;
  /** Asked for by services, each for its one task. */
  readonly fixed: Map<string, Set<ServiceId>>;
  last: string | undefined;
}

interface Holding {
  readonly nodeId: NodeId;
  readonly addresses: readonly TaskAddress[];
}

export class NetworkAddresses {
  readonly #networks = new Map<string, ClusterNetwork>();
  readonly #pools = new Map<string, Pool>();
  readonly #tasks = new Map<TaskId, Holding>();
  /** Of nodes that are not ready: their tasks may run on. */
  readonly #orphans = new Map<NodeId, Set<TaskId>>();
  readonly #ready = new Set<NodeId>();
  readonly #fixed = new Map<ServiceId, readonly NetworkAttachment[]>();

  static of(snapshot: Snapshot, now: number): NetworkAddresses {
    const addresses = new NetworkAddresses();
    for (const network of snapshot.all('network')) addresses.setNetwork(network.spec.name, network);
    for (const node of snapshot.all('node')) addresses.setNode(node.id, node, now);
    for (const service of snapshot.all('service')) addresses.setService(service.id, service);
    for (const task of snapshot.all('task')) addresses.setTask(task.id, task, now);
    return addresses;
  }

  setNetwork(name: string, network: ClusterNetwork | undefined): void {
    if (network) this.#networks.set(name, network);
    else {
      this.#networks.delete(name);
      this.#pools.delete(name);
    }
  }

  setNode(id: NodeId, node: Node | undefined, now: number): void {
    if (node && node.state !== 'ready') {
      this.#ready.delete(id);
      return;
    }
    if (node) this.#ready.add(id);
    else this.#ready.delete(id);
    // It is back and its agent removes what was orphaned, or it is no member any more: from now on those addresses rest.
    for (const task of this.#orphans.get(id) ?? []) this.#free(task, now + addressRestMs);
    this.#orphans.delete(id);
  }

  /** The service's fixed addresses are for its task alone. */
  setService(id: ServiceId, service: Service | undefined): void {
    const wanted = (service?.removing ? undefined : service)?.spec.template.networks.filter(
      ({ ipv4Address }) => ipv4Address !== '',
    );
    const before = this.#fixed.get(id) ?? [];
    if (before.length === 0 && !wanted?.length) return;
    for (const { network, ipv4Address } of before) {
      const owners = this.#pool(network).fixed.get(ipv4Address);
      owners?.delete(id);
      if (owners?.size === 0) this.#pool(network).fixed.delete(ipv4Address);
    }
    for (const { network, ipv4Address } of wanted ?? []) {
      const { fixed } = this.#pool(network);
      fixed.set(ipv4Address, (fixed.get(ipv4Address) ?? new Set()).add(id));
    }
    if (wanted?.length) this.#fixed.set(id, wanted);
    else this.#fixed.delete(id);
  }

  /** The task as it is, or is about to be; undefined: its record is gone. */
  setTask(id: TaskId, task: Task | undefined, now: number): void {
    const before = this.#tasks.get(id);
    if (task && occupiesNode(task)) {
      if (before?.addresses === task.addresses || (!before && task.addresses.length === 0)) return;
      if (before) this.#free(id, now + addressRestMs);
      this.#hold(id, { nodeId: task.nodeId as NodeId, addresses: task.addresses });
    } else if (before) this.#leave(id, before.nodeId, task, now + addressRestMs);
    else if (task && task.nodeId !== '' && task.addresses.length > 0 && isTerminal(task.state))
      this.#restore(task, now);
  }

  /** As if the task had never been about to be: its addresses rest nowhere. */
  forgetPlanned(id: TaskId): void {
    for (const { network, address } of this.#tasks.get(id)?.addresses ?? []) {
      const pool = this.#pool(network);
      if (pool.held.get(address) === id) pool.held.delete(address);
    }
    this.#tasks.delete(id);
  }

  /**
   * An address for one more task on each of these networks that has subnets of its own, or why there is none, in words. Tell `setTask`
   * who has them before the next ones are taken.
   */
  take(attachments: readonly NetworkAttachment[], now: number): TaskAddress[] | string {
    const taken: TaskAddress[] = [];
    for (const attachment of attachments) {
      const network = this.#networks.get(attachment.network);
      if (!network) return `network ${attachment.network} is not there`;
      if (network.spec.subnets.length === 0) continue;
      const address = this.#takeOn(network, attachment, now);
      if (address.problem !== undefined) return address.problem;
      taken.push({ network: attachment.network, address: address.address });
    }
    return taken;
  }

  #takeOn(
    { spec }: ClusterNetwork,
    { ipv4Address }: NetworkAttachment,
    now: number,
  ): { readonly address: string; readonly problem?: undefined } | { readonly problem: string } {
    const pool = this.#pool(spec.name);
    if (ipv4Address !== '') {
      const holder = pool.held.get(ipv4Address);
      // An orphan's node is away: its successor has the address, as it has its volumes.
      const inUse = holder !== undefined && this.#tasks.has(holder) && !this.#isOrphan(holder);
      return inUse
        ? { problem: `address ${ipv4Address} of network ${spec.name} is still in use` }
        : { address: ipv4Address };
    }
    for (const [address, freeAtMs] of pool.resting) {
      if (freeAtMs > now) break;
      pool.resting.delete(address);
    }
    for (const subnet of spec.subnets) {
      const address = nextOf(subnet, pool);
      if (address === undefined) continue;
      pool.last = address;
      return { address };
    }
    for (const address of pool.resting.keys()) {
      if (pool.fixed.has(address) || pool.held.has(address)) continue;
      pool.resting.delete(address);
      return { address };
    }
    const ranges = spec.subnets.map(({ subnet, ipRange }) => ipRange || subnet);
    return { problem: `all addresses of network ${spec.name} are taken (${ranges.join(', ')})` };
  }

  #hold(id: TaskId, holding: Holding): void {
    this.#tasks.set(id, holding);
    for (const { network, address } of holding.addresses) {
      const pool = this.#pool(network);
      pool.resting.delete(address);
      pool.held.set(address, id);
    }
  }

  #leave(id: TaskId, nodeId: NodeId, task: Task | undefined, freeAtMs: number): void {
    if (task?.state === 'orphaned' && !this.#ready.has(nodeId)) {
      const orphans = this.#orphans.get(nodeId);
      if (orphans) orphans.add(id);
      else this.#orphans.set(nodeId, new Set([id]));
    } else if (!task && this.#isOrphan(id)) return;
    else this.#free(id, freeAtMs);
  }

  /** A task that had ended before we began: only what it tells itself is known. */
  #restore(task: Task, now: number): void {
    const nodeId = task.nodeId as NodeId;
    const isFree = ({ network, address }: TaskAddress) => {
      const pool = this.#pool(network);
      return !pool.held.has(address) && !pool.resting.has(address);
    };
    const addresses = task.addresses.filter(isFree);
    if (addresses.length === 0) return;
    if (task.state === 'orphaned' && !this.#ready.has(nodeId)) {
      this.#hold(task.id, { nodeId, addresses });
      this.#leave(task.id, nodeId, task, 0);
      return;
    }
    const freeAtMs = task.stateAtMs + addressRestMs;
    if (freeAtMs > now)
      for (const { network, address } of addresses) this.#pool(network).resting.set(address, freeAtMs);
  }

  #free(id: TaskId, freeAtMs: number): void {
    for (const { network, address } of this.#tasks.get(id)?.addresses ?? []) {
      const pool = this.#pool(network);
      if (pool.held.get(address) !== id) continue;
      pool.held.delete(address);
      pool.resting.delete(address);
      pool.resting.set(address, freeAtMs);
    }
    this.#tasks.delete(id);
  }

  #isOrphan(id: TaskId): boolean {
    const holding = this.#tasks.get(id);
    return holding !== undefined && (this.#orphans.get(holding.nodeId)?.has(id) ?? false);
  }

  #pool(network: string): Pool {
    let pool = this.#pools.get(network);
    if (!pool) {
      pool = { held: new Map(), resting: new Map(), fixed: new Map(), last: undefined };
      this.#pools.set(network, pool);
    }
    return pool;
  }
}

/** The next free address that a subnet gives out: of its `ipRange`, and never its first, its last, its gateway or a reserved one. */
function nextOf({ subnet, ipRange, gateway, reserved }: NetworkSubnet, pool: Pool): string | undefined {
  const whole = parseCidr(subnet);
  const part = parseCidr(ipRange || subnet);
  const never = new Set([
    formatAddress(whole.base),
    formatAddress(whole.base + sizeOf(whole) - 1),
    gateway || formatAddress(whole.base + 1),
    ...reserved,
  ]);
  const { held, resting, fixed, last } = pool;
  const used = {
    has: (address: string) => held.has(address) || resting.has(address) || fixed.has(address) || never.has(address),
    size: held.size + resting.size + fixed.size + never.size,
  };
  return nextWithin(part.base, sizeOf(part), used, last);
}
