/** What the kernel of one node should hold, as a function of one revision. */
import type { Endpoint, Peer } from '#proto/model/assignment.ts';
import type { Port } from '#proto/model/service.ts';
import { balanceEndpoint, type Elements, type Group, portKey, publishOnHost } from './balance.ts';
import { gatewayOf, parseAddress, prefixOf, tryAddress } from './cidr.ts';
import { type Route, routesOf } from './routes.ts';
import { type Declarations, declarationsOf } from './rules.ts';

/** The bridge that the tasks of a node hang on. */
export const bridgeName = 'gantry0';

/** A node's bridge; undefined fields of it never vary. */
export interface Bridge {
  readonly mac: string;
  readonly up: boolean;
  /** CIDRs with host bits: `10.192.1.1/24`. */
  readonly addresses: readonly string[];
}

/** Our table as planned: elements in groups, so that an unchanged endpoint costs nothing at the next revision. */
export interface Firewall {
  readonly declarations: Declarations;
  readonly groups: ReadonlyMap<string, Group>;
}

export interface NodePlan {
  readonly sysctls: ReadonlyMap<string, string>;
  readonly bridge: Bridge;
  /** Host ends of the tasks' veths, each up and on the bridge. */
  readonly ports: ReadonlySet<string>;
  /** By destination. */
  readonly routes: ReadonlyMap<string, Route>;
  readonly firewall: Firewall;
}

/** What a plan is made of; a NetworkWanted fits. */
export interface PlanInput {
  readonly nodeId: string;
  readonly address: string;
  readonly subnet: string;
  readonly network: string;
  readonly vipNetwork: string;
  readonly peers: readonly Peer[];
  readonly endpoints: readonly Endpoint[];
  readonly attachments: readonly {
    readonly taskId: string;
    readonly address: string;
    readonly hostPorts: readonly Port[];
  }[];
}

/** A plan, with what the next one can take over. */
export interface Planned {
  readonly plan: NodePlan;
  readonly input: PlanInput;
  /** By service id: the endpoint and the ports it owned, as they were when its group was made. */
  readonly sources: ReadonlyMap<string, Source>;
}

/** An endpoint's group, and what it was made of. */
export interface Source {
  /** The group's key. */
  readonly key: string;
  readonly endpoint: Endpoint;
  readonly ports: string;
  readonly group: Group;
}

const noPorts: readonly Port[] = [];

/**
 * The plan of a revision. `ports`: names of the veths that exist for tasks. With `previous`, the groups of endpoints that
 * are the same objects as then are taken over: the result is equal to one made without it.
 * A port that two claim is published by the host-mode task, else by the endpoint whose id sorts first.
 */
export function planNode(input: PlanInput, ports: ReadonlySet<string>, previous?: Planned): Planned {
  const claimed = new Set<string>();
  const groups = new Map<string, Group>();
  const sources = new Map<string, Source>();
  const claim = (candidates: readonly Port[]) =>
    candidates.filter((port) => {
      if (port.published === 0 || claimed.has(portKey(port))) return false;
      claimed.add(portKey(port));
      return true;
    });
  for (const attachment of byText(input.attachments, (item) => item.taskId)) {
    const host = publishOnHost(attachment.address, claim(attachment.hostPorts.filter((port) => port.mode === 'host')));
    const elements = new Map(host.elements);
    elements.set(`hairpin ${attachment.address} . ${attachment.address}`, '');
    groups.set(`task/${attachment.taskId}`, { elements, chains: host.chains });
  }
  for (const endpoint of byText(input.endpoints, (item) => item.serviceId)) {
    const owned =
      endpoint.ports.length === 0 ? noPorts : claim(endpoint.ports.filter((port) => port.mode === 'ingress'));
    const ports = owned.length === 0 ? '' : owned.map((port) => `${portKey(port)}:${port.target}`).join();
    const before = previous?.sources.get(endpoint.serviceId);
    const source =
      before?.endpoint === endpoint && before.ports === ports
        ? before
        : { key: `endpoint/${endpoint.serviceId}`, endpoint, ports, group: balanceEndpoint(endpoint, owned) };
    sources.set(endpoint.serviceId, source);
    if (source.group.elements.size > 0) groups.set(source.key, source.group);
  }
  groups.set('hosts', { elements: hostsOf(input), chains: [] });
  const chains = new Set<string>();
  for (const group of groups.values()) for (const chain of group.chains) chains.add(chain);
  const gateway = gatewayOf(input.subnet);
  const plan: NodePlan = {
    sysctls: new Map([['net.ipv4.ip_forward', '1']]),
    bridge: { mac: macOf(gateway), up: true, addresses: [`${gateway}/${prefixOf(input.subnet)}`] },
    ports,
    routes: routesOf({ ...input, bridge: bridgeName }),
    firewall: { declarations: declarationsOf({ ...input, bridge: bridgeName }, chains), groups },
  };
  return { plan, input, sources };
}

/**
 * The MAC of whoever has the address: a neighbour's entry for a reused address is then never stale (F26), and the
 * bridge's does not change as ports come and go.
 */
export function macOf(address: string): string {
  const value = parseAddress(address);
  const bytes = [0x02, 0x47, value >>> 24, (value >>> 16) & 255, (value >>> 8) & 255, value & 255];
  return bytes.map((byte) => byte.toString(16).padStart(2, '0')).join(':');
}

/** The name of the host's end of a task's veth: 15 characters at most are allowed. */
export function portNameOf(taskId: string): string {
  return `gt${taskId.slice(0, 13)}`;
}

/** True for a name that portNameOf gives: such a link on our bridge is ours. */
export function isPortName(name: string): boolean {
  return name.startsWith('gt');
}

/** The elements of all groups together. */
export function flatten(groups: ReadonlyMap<string, Group>): Elements {
  const all = new Map<string, string>();
  for (const group of groups.values()) for (const [element, value] of group.elements) all.set(element, value);
  return all;
}

function hostsOf(input: PlanInput): Elements {
  const elements = new Map<string, string>();
  for (const address of [input.address, ...input.peers.map((peer) => peer.address)]) {
    // A node's own word, and this text is a command: what is no address stays out.
    if (tryAddress(address) !== undefined) elements.set(`hosts ${address}`, '');
  }
  return elements;
}

function byText<T>(items: readonly T[], text: (item: T) => string): readonly T[] {
  for (let index = 1; index < items.length; index++) {
    if (text(items[index - 1] as T) > text(items[index] as T)) {
      return [...items].sort((a, b) => (text(a) < text(b) ? -1 : text(a) > text(b) ? 1 : 0));
    }
  }
  return items;
}
