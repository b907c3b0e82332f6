/** What the tasks of one node add to its rules: their host ports, what they reach, and the addresses they send by. */
import type { Endpoint } from '#proto/model/assignment.ts';
import type { Bandwidth, TaskAddress } from '#proto/model/network.ts';
import type { Port } from '#proto/model/service.ts';
import { type Group, portKey, publishOnHost } from './balance.ts';
import type { Family, FamilyName } from './family.ts';
import { type GroupNumber, type Networks, type Reach, reachChainName, reachOf } from './isolation.ts';
import { macOf } from './mac.ts';

/** A task with a namespace of its own here; an Attachment fits. */
export interface LocalTask {
  readonly taskId: string;
  readonly serviceId: string;
  readonly address: string;
  readonly hostPorts: readonly Port[];
  readonly networks: readonly string[];
  readonly addresses: readonly TaskAddress[];
  readonly bandwidth: Bandwidth;
}

export interface LocalTasks {
  /** Keys of the ports that they publish on this node (portKey). */
  readonly claimed: ReadonlySet<string>;
  /** What they reach, by the name of the chain that says so. */
  readonly reaches: ReadonlyMap<string, Reach>;
  /** All groups that one of them reaches. */
  readonly reached: ReadonlySet<GroupNumber>;
  readonly groups: ReadonlyMap<FamilyName, ReadonlyMap<string, Group>>;
}

export function planLocalTasks(
  tasks: readonly LocalTask[],
  around: {
    readonly networks: Networks;
    readonly guarded: readonly Endpoint[];
    readonly serviceOf: (id: string) => Pick<Endpoint, 'project' | 'name'> | undefined;
    readonly families: readonly Family[];
  },
): LocalTasks {
  const { networks, families } = around;
  const claimed = new Set<string>();
  const reaches = new Map<string, Reach>();
  const groups = new Map(families.map(({ name }) => [name, new Map<string, Group>()]));
  for (const task of byText(tasks, ({ taskId }) => taskId)) {
    const reach = reachOf(task, around.serviceOf(task.serviceId), around.guarded, networks);
    const chain = reachChainName(reach);
    if (networks.isolated) reaches.set(chain, reach);
    const owned = claim(task.hostPorts, 'host', claimed);
    for (const family of families) {
      if (family.name === 'ip6' && !hasIpv6(task, networks)) continue;
      const sender = networks.isolated ? chain : undefined;
      groups.get(family.name)?.set(`task/${task.taskId}`, groupOf(task, owned, sender, networks, family));
    }
  }
  return { claimed, reaches, reached: new Set([...reaches.values()].flatMap((reach) => reach.groups)), groups };
}

/** True for a task that one of its networks gives an IPv6 address. */
export function hasIpv6(task: { readonly networks: readonly string[] }, { routed }: Networks): boolean {
  return task.networks.some((name) => routed.get(name)?.spec.ipv6);
}

/** Its addresses on eth0 beside the primary one: those of networks that Gantry routes. */
export function furtherAddresses(
  task: { readonly addresses: readonly TaskAddress[] },
  { routed }: Networks,
): readonly TaskAddress[] {
  return task.addresses.filter(({ network }) => routed.has(network));
}

function groupOf(
  task: LocalTask,
  owned: readonly Port[],
  sender: string | undefined,
  networks: Networks,
  family: Family,
): Group {
  const host = publishOnHost(task.address, owned, family);
  const elements = new Map(host.elements);
  const address = family.address(task.address);
  if (address === undefined) return host;
  elements.set(`hairpin ${address} . ${address}`, '');
  const further = family.name === 'ip' ? furtherAddresses(task, networks).map((item) => item.address) : [];
  for (const one of further) elements.set(`further ${one}`, '');
  if (sender === undefined) return { elements, chains: host.chains };
  for (const one of [address, ...further]) {
    elements.set(`sources ${macOf(task.address)} . ${one}`, '');
    elements.set(`senders ${one}`, `goto ${sender}`);
  }
  return { elements, chains: host.chains };
}

/** Those of `ports` in that mode that nobody has claimed; they are claimed now. */
export function claim(ports: readonly Port[], mode: Port['mode'], claimed: Set<string>): readonly Port[] {
  return ports.filter((port) => {
    if (port.mode !== mode || port.published === 0 || claimed.has(portKey(port))) return false;
    claimed.add(portKey(port));
    return true;
  });
}

/** In the order of `text`; the same array where it is in order. */
export function byText<T>(items: readonly T[], text: (item: T) => string): readonly T[] {
  for (let index = 1; index < items.length; index++) {
    if (text(items[index - 1] as T) > text(items[index] as T)) {
      return [...items].sort((a, b) => (text(a) < text(b) ? -1 : text(a) > text(b) ? 1 : 0));
    }
  }
  return items;
}
