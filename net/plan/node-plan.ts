/** What the kernel of one node should hold, as a function of one revision. */
import type { Endpoint, Peer } from '#proto/model/assignment.ts';
import type { Port } from '#proto/model/service.ts';
import { balanceEndpoint, type Elements, type Group, portKey, publishOnHost } from './balance.ts';
import { gatewayOf, parseAddress, prefixOf, tryAddress } from './cidr.ts';
import { describeRule, type Rule, returnPaths } from './return-path.ts';
import { type Route, routeKey, routesOf } from './routes.ts';
import { type Declarations, declarationsOf } from './rules.ts';
import { changed, lookUp, type Shards, shardsOf, valuesOf } from './shards.ts';

/** The bridge that the tasks of a node hang on. */
export const bridgeName = 'gantry0';

/** A node's bridge; undefined fields of it never vary. */
export interface Bridge {
  readonly mac: string;
  readonly up: boolean;
  /** CIDRs with host bits: `10.192.1.1/24`. */
  readonly addresses: readonly string[];
}

/** An endpoint's elements, and what they were made of. */
export interface EndpointGroup extends Group {
  readonly endpoint: Endpoint;
  /** The ports of the endpoint that are its to publish. */
  readonly owned: readonly Port[];
}

/** Our table as planned: elements in groups, so that an unchanged endpoint costs nothing at the next revision. */
export interface Firewall {
  readonly declarations: Declarations;
  /** Of tasks, hosts and peers. */
  readonly groups: ReadonlyMap<string, Group>;
  /** By service id. */
  readonly endpoints: Shards<EndpointGroup>;
}

export interface NodePlan {
  readonly sysctls: ReadonlyMap<string, string>;
  readonly bridge: Bridge;
  /** Host ends of the tasks' veths, each up and on the bridge. */
  readonly ports: ReadonlySet<string>;
  /** By routeKey. */
  readonly routes: ReadonlyMap<string, Route>;
  /** By describeRule. */
  readonly rules: ReadonlyMap<string, Rule>;
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

/** What the plan takes from the node as it is. */
export interface Surroundings {
  /** Names of the veths that exist for tasks. */
  readonly ports: ReadonlySet<string>;
  /** MACs of the peers that are known on the link, by address. */
  readonly macs: ReadonlyMap<string, string>;
}

/** What follows from the peers alone. */
interface Ways {
  readonly routes: NodePlan['routes'];
  readonly rules: NodePlan['rules'];
  readonly groups: ReadonlyMap<string, Group>;
}

/** A plan, with what the next one can take over. */
export interface Planned {
  readonly plan: NodePlan;
  readonly input: PlanInput;
  readonly around: Surroundings;
  readonly ways: Ways;
  /** How many endpoints' verdicts lead to each dispatch chain. */
  readonly chains: ReadonlyMap<string, number>;
  /** The ports that tasks publish on this node. */
  readonly claimed: ReadonlySet<string>;
}

/**
 * The plan of a revision. With `previous`, the endpoints that are the same objects as then are not looked at: the result
 * is equal to one made without it.
 * A port that two claim is published by the host-mode task, else by the endpoint whose id sorts first.
 */
export function planNode(input: PlanInput, around: Surroundings, previous?: Planned): Planned {
  const tasks = planTasks(input);
  const { endpoints, chains } = followEndpoints(input, tasks.claimed, previous) ?? planEndpoints(input, tasks.claimed);
  const ways = previous && sameWays(input, around, previous) ? previous.ways : planWays(input, around);
  const groups = new Map([...tasks.groups, ...ways.groups]);
  const dispatch = new Set(chains.keys());
  for (const group of groups.values()) for (const chain of group.chains) dispatch.add(chain);
  const gateway = gatewayOf(input.subnet);
  const plan: NodePlan = {
    sysctls: new Map([['net.ipv4.ip_forward', '1']]),
    bridge: { mac: macOf(gateway), up: true, addresses: [`${gateway}/${prefixOf(input.subnet)}`] },
    ports: around.ports,
    routes: ways.routes,
    rules: ways.rules,
    firewall: { declarations: declarationsOf({ ...input, bridge: bridgeName }, dispatch), groups, endpoints },
  };
  return { plan, input, around, ways, chains, claimed: tasks.claimed };
}

function planWays(input: PlanInput, around: Surroundings): Ways {
  const wanted = { ...input, bridge: bridgeName };
  const paths = returnPaths(wanted, around.macs);
  return {
    routes: new Map([...routesOf(wanted), ...paths.routes].map((route) => [routeKey(route), route])),
    rules: new Map(paths.rules.map((rule) => [describeRule(rule), rule])),
    groups: new Map([
      ['hosts', { elements: hostsOf(input), chains: [] }],
      ['peers', { elements: paths.elements, chains: [] }],
    ]),
  };
}

function sameWays(input: PlanInput, around: Surroundings, { input: before, around: then }: Planned): boolean {
  const fields = ['nodeId', 'address', 'subnet', 'network', 'vipNetwork'] as const;
  return (
    around.macs === then.macs &&
    fields.every((field) => input[field] === before[field]) &&
    input.peers.length === before.peers.length &&
    input.peers.every((peer, index) => peer === before.peers[index])
  );
}

/** The groups of tasks, and the ports that they claim. */
function planTasks(input: PlanInput) {
  const claimed = new Set<string>();
  const groups = new Map<string, Group>();
  for (const attachment of byText(input.attachments, (item) => item.taskId)) {
    const owned = claim(attachment.hostPorts, 'host', claimed);
    const host = publishOnHost(attachment.address, owned);
    const elements = new Map(host.elements);
    elements.set(`hairpin ${attachment.address} . ${attachment.address}`, '');
    groups.set(`task/${attachment.taskId}`, { elements, chains: host.chains });
  }
  return { groups, claimed };
}

/** Those of `ports` in that mode that nobody has claimed; they are claimed now. */
function claim(ports: readonly Port[], mode: Port['mode'], claimed: Set<string>): readonly Port[] {
  return ports.filter((port) => {
    if (port.mode !== mode || port.published === 0 || claimed.has(portKey(port))) return false;
    claimed.add(portKey(port));
    return true;
  });
}

function planEndpoints(input: PlanInput, claimedByTasks: ReadonlySet<string>) {
  const claimed = new Set(claimedByTasks);
  const groups: [string, EndpointGroup][] = [];
  const chains = new Map<string, number>();
  for (const endpoint of byText(input.endpoints, (item) => item.serviceId)) {
    const group = groupOf(endpoint, claim(endpoint.ports, 'ingress', claimed));
    groups.push([endpoint.serviceId, group]);
    count(chains, group, 1);
  }
  return { endpoints: shardsOf(groups), chains };
}

/** What planEndpoints would give, from what it gave for `previous`; undefined where a port may have another owner now. */
function followEndpoints(input: PlanInput, claimed: ReadonlySet<string>, previous: Planned | undefined) {
  if (!previous || !sameSet(claimed, previous.claimed)) return undefined;
  const { endpoints } = previous.plan.firewall;
  const chains = new Map(previous.chains);
  const changes: [string, EndpointGroup | undefined][] = [];
  for (const [id, now] of changesOf(input.endpoints, previous.input.endpoints)) {
    const before = lookUp(endpoints, id);
    if (portsText(before?.endpoint) !== portsText(now)) return undefined;
    const group = now && groupOf(now, before?.owned ?? []);
    if (before) count(chains, before, -1);
    if (group) count(chains, group, 1);
    changes.push([id, group]);
  }
  return { endpoints: changed(endpoints, changes), chains };
}

function portsText(endpoint: Endpoint | undefined): string {
  return (endpoint?.ports ?? []).map((port) => `${port.mode} ${portKey(port)} ${port.target}`).join();
}

function groupOf(endpoint: Endpoint, owned: readonly Port[]): EndpointGroup {
  return { ...balanceEndpoint(endpoint, owned), endpoint, owned };
}

function count(chains: Map<string, number>, group: Group, by: number): void {
  for (const chain of group.chains) {
    const total = (chains.get(chain) ?? 0) + by;
    if (total === 0) chains.delete(chain);
    else chains.set(chain, total);
  }
}

/** The endpoints that are not the same objects in both, by service id; only what lies between equal ends is looked at. */
export function changesOf(
  now: readonly Endpoint[],
  before: readonly Endpoint[],
): ReadonlyMap<string, Endpoint | undefined> {
  let start = 0;
  while (start < now.length && start < before.length && now[start] === before[start]) start++;
  let end = 0;
  const most = Math.min(now.length, before.length) - start;
  while (end < most && now[now.length - 1 - end] === before[before.length - 1 - end]) end++;
  const changes = new Map<string, Endpoint | undefined>();
  const old = new Set<Endpoint>();
  for (const endpoint of before.slice(start, before.length - end)) {
    old.add(endpoint);
    changes.set(endpoint.serviceId, undefined);
  }
  for (const endpoint of now.slice(start, now.length - end)) {
    if (old.has(endpoint)) changes.delete(endpoint.serviceId);
    else changes.set(endpoint.serviceId, endpoint);
  }
  return changes;
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
export function elementsOf(firewall: Firewall): Elements {
  const all = new Map<string, string>();
  const add = (group: Group) => {
    for (const [element, value] of group.elements) all.set(element, value);
  };
  for (const group of firewall.groups.values()) add(group);
  for (const group of valuesOf(firewall.endpoints)) add(group);
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

export function sameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && [...a].every((item) => b.has(item));
}
