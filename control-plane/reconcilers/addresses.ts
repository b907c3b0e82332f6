/** Who has which address: taken from the snapshot first, then handed out; an address that became free rests before it means somebody else. */
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { nextAddress } from '#net/plan/ipam.ts';
import type { NodeId, ServiceId, TaskId } from '#proto/model/ids.ts';
import type { Node } from '#proto/model/node.ts';
import type { Service } from '#proto/model/service.ts';
import { isTerminal, occupiesNode, type Task } from '#proto/model/task.ts';

export const defaultNetwork = '10.192.0.0/11';
export const defaultVipNetwork = '10.224.0.0/14';
/** How long a freed address means nobody: connections and caches of its former owner have gone by then. */
export const addressRestMs = 60_000;

interface Pool {
  /** Held by tasks, or by orphans on a node that has not come back; several where tasks share a network. */
  readonly held: Map<string, Set<TaskId>>;
  /** Free from this instant (wall clock ms); in the order in which they were freed. */
  readonly resting: Map<string, number>;
  /** Both of them: what may not be handed out. */
  readonly taken: Set<string>;
  last: string | undefined;
}

export class Addresses {
  readonly #nodes = new Map<NodeId, Node>();
  readonly #pools = new Map<NodeId, Pool>();
  readonly #tasks = new Map<TaskId, { readonly nodeId: NodeId; readonly address: string }>();
  readonly #vips = new Map<ServiceId, string>();
  readonly #vipRest = new Map<string, number>();
  #lastVip: string | undefined;

  static of(snapshot: Snapshot, now: number): Addresses {
    const addresses = new Addresses();
    for (const node of snapshot.all('node')) addresses.setNode(node.id, node, now);
    for (const task of snapshot.all('task')) addresses.setTask(task.id, task, now);
    for (const service of snapshot.all('service')) addresses.setService(service.id, service, now);
    return addresses;
  }

  setNode(id: NodeId, node: Node | undefined, now: number): void {
    const before = this.#nodes.get(id);
    if (!node) {
      this.#nodes.delete(id);
      this.#pools.delete(id);
      return;
    }
    this.#nodes.set(id, node);
    if (!before || before.state === 'ready' || node.state !== 'ready') return;
    // It is back, and its agent removes what was orphaned: from now on those addresses rest.
    const pool = this.#pool(id);
    for (const [address, tasks] of pool.held)
      if (![...tasks].some((task) => this.#tasks.has(task))) rest(pool, address, now + addressRestMs);
  }

  /** The task as it is, or is about to be; undefined: its record is gone. */
  setTask(id: TaskId, task: Task | undefined, now: number): void {
    const before = this.#tasks.get(id);
    const holds = task !== undefined && occupiesNode(task) && task.address !== '';
    if (holds) {
      if (before?.address === task.address) return;
      const pool = this.#pool(task.nodeId as NodeId);
      hold(pool, task.address, id);
      this.#tasks.set(id, { nodeId: task.nodeId as NodeId, address: task.address });
    } else if (before) {
      this.#tasks.delete(id);
      this.#free(before.nodeId, before.address, id, task, now + addressRestMs);
    } else if (task && task.address !== '' && task.nodeId !== '' && isTerminal(task.state)) {
      this.#restore(task, now);
    }
  }

  /** As if the task had never been about to be: its address rests nowhere. */
  forgetPlanned(id: TaskId): void {
    const planned = this.#tasks.get(id);
    if (!planned) return;
    this.#tasks.delete(id);
    const pool = this.#pool(planned.nodeId);
    const others = pool.held.get(planned.address);
    others?.delete(id);
    if (others && others.size > 0) return;
    pool.held.delete(planned.address);
    pool.taken.delete(planned.address);
  }

  setService(id: ServiceId, service: Service | undefined, now: number): void {
    const before = this.#vips.get(id);
    const vip = service?.vip ?? '';
    if ((before ?? '') === vip) return;
    if (before) this.#vipRest.set(before, now + addressRestMs);
    if (vip === '') this.#vips.delete(id);
    else {
      this.#vips.set(id, vip);
      this.#vipRest.delete(vip);
    }
  }

  /** An address for one more task of the node; undefined when all are held. Tell `setTask` who has it before the next one. */
  take(nodeId: NodeId, now: number): string | undefined {
    const subnet = this.#nodes.get(nodeId)?.subnet;
    if (!subnet) return undefined;
    const pool = this.#pool(nodeId);
    for (const [address, freeAtMs] of pool.resting) {
      if (freeAtMs > now) break;
      pool.resting.delete(address);
      pool.taken.delete(address);
    }
    const address = nextAddress(subnet, pool.taken, pool.last) ?? pool.resting.keys().next().value;
    if (address !== undefined) pool.last = address;
    return address;
  }

  /** An address for one more service; undefined when all are taken. */
  takeVip(vipNetwork: string, now: number): string | undefined {
    for (const [vip, freeAtMs] of this.#vipRest) if (freeAtMs <= now) this.#vipRest.delete(vip);
    const taken = new Set([...this.#vips.values(), ...this.#vipRest.keys()]);
    const vip = nextAddress(vipNetwork || defaultVipNetwork, taken, this.#lastVip);
    if (vip !== undefined) this.#lastVip = vip;
    return vip;
  }

  #free(nodeId: NodeId, address: string, id: TaskId, task: Task | undefined, freeAtMs: number): void {
    const pool = this.#pools.get(nodeId);
    const holders = pool?.held.get(address);
    if (!pool || !holders?.has(id)) return;
    // A node that is not there keeps what it has: its processes may run on for as long as it is away.
    if (task?.state === 'orphaned' && this.#nodes.get(nodeId)?.state !== 'ready') return;
    holders.delete(id);
    if (holders.size > 0) return;
    rest(pool, address, freeAtMs);
  }

  /** A task that had ended before we began: only what it tells itself is known. */
  #restore(task: Task, now: number): void {
    const node = this.#nodes.get(task.nodeId as NodeId);
    if (!node) return;
    const pool = this.#pool(node.id);
    if (pool.taken.has(task.address)) return;
    if (task.state === 'orphaned' && node.state !== 'ready') {
      hold(pool, task.address, task.id);
      return;
    }
    const endedAtMs = Math.max(task.stateAtMs, task.state === 'orphaned' ? node.stateAtMs : 0);
    if (endedAtMs + addressRestMs > now) rest(pool, task.address, endedAtMs + addressRestMs);
  }

  #pool(id: NodeId): Pool {
    let pool = this.#pools.get(id);
    if (!pool) {
      pool = { held: new Map(), resting: new Map(), taken: new Set(), last: undefined };
      this.#pools.set(id, pool);
    }
    return pool;
  }
}

function hold(pool: Pool, address: string, id: TaskId): void {
  pool.resting.delete(address);
  const holders = pool.held.get(address);
  if (holders) holders.add(id);
  else pool.held.set(address, new Set([id]));
  pool.taken.add(address);
}

function rest(pool: Pool, address: string, freeAtMs: number): void {
  pool.held.delete(address);
  pool.resting.delete(address);
  pool.resting.set(address, freeAtMs);
  pool.taken.add(address);
}
