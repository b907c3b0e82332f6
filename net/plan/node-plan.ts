/** What the kernel of one node should hold, as a function of one revision. */
import type { Fault } from '#proto/kernel/errors.ts';
import type { Endpoint } from '#proto/model/assignment.ts';
import type { ClusterNetwork } from '#proto/model/network.ts';
import { tryAddress6 } from './address6.ts';
import { type Elements, type Group, portKey } from './balance.ts';
import { formatCidr, gatewayOf, parseCidr, prefixOf, tryAddress } from './cidr.ts';
import { type Balanced, balanceEndpoints, type EndpointGroup, followBalance } from './endpoint-groups.ts';
import { type Family, type FamilyName, ip, ip6 } from './family.ts';
import { type Fittings, fittingsOf } from './fittings.ts';
import { type Networks, networksOf } from './isolation.ts';
import { byText, claim, type LocalTask, type LocalTasks, planLocalTasks } from './local-tasks.ts';
import { macOf } from './mac.ts';
import { furtherRoutes, nodeRoutes, type RouteParts } from './node-routes.ts';
import { describeRule, type Rule, returnPaths } from './return-path.ts';
import { type Route, routeKey, routesOf } from './routes.ts';
import { type Declarations, declarationsOf, dispatchChain, type RuleWords, reachChain } from './rules.ts';
import { keysOf, lookUp, type Shards, valuesOf } from './shards.ts';
import { type Tunnel, tunnelName, type WireGuard, wireguardName } from './tunnel.ts';
import { endOf, type PeerWay, tunnelOf, type WaysInput, type Wires, waysMissing, waysOf, wireguardOf } from './ways.ts';

/** The bridge that the tasks of a node hang on. */
export const bridgeName = 'gantry0';

/** A node's bridge; undefined fields of it never vary. */
export interface Bridge {
  readonly mac: string;
  readonly up: boolean;
  /** CIDRs with host bits: `10.192.1.1/24`. */
  readonly addresses: readonly string[];
}

/** Our table of a family as planned: elements in groups, so that an unchanged endpoint costs nothing at the next revision. */
export interface Firewall {
  readonly family: FamilyName;
  readonly declarations: Declarations;
  /** What the declarations speak of, and the names of the chains among them that come and go. */
  readonly words: RuleWords;
  readonly names: ReadonlySet<string>;
  /** Of tasks, hosts and peers. */
  readonly groups: ReadonlyMap<string, Group>;
  /** By service id. */
  readonly endpoints: Shards<EndpointGroup>;
  /** Elements of `members`, to how many endpoints they are of. */
  readonly members: Shards<number>;
}

export interface NodePlan {
  readonly sysctls: ReadonlyMap<string, string>;
  readonly bridge: Bridge;
  /** Host ends of the tasks' veths, each up and on the bridge. */
  readonly ports: ReadonlySet<string>;
  /** nftables sees what passes between them; else nothing may. */
  readonly bridged: boolean;
  /** What tasks that are attached have beside their primary address, by their id. */
  readonly fittings: ReadonlyMap<string, Fittings>;
  /** By routeKey. */
  readonly routes: ReadonlyMap<string, Route>;
  /** By describeRule. */
  readonly rules: ReadonlyMap<string, Rule>;
  /** Undefined where no peer is behind a tunnel. */
  readonly tunnel: Tunnel | undefined;
  readonly wireguard: WireGuard | undefined;
  readonly firewall: Firewall;
  /** Undefined where no network has IPv6. */
  readonly firewall6: Firewall | undefined;
}

/** What a plan is made of; a NetworkWanted fits. */
export interface PlanInput extends WaysInput {
  readonly network: string;
  readonly vipNetwork: string;
  readonly network6: string;
  readonly address6: string;
  readonly endpoints: readonly Endpoint[];
  readonly networks: readonly ClusterNetwork[];
  readonly attachments: readonly LocalTask[];
}

/** What the plan takes from the node as it is. */
export interface Surroundings extends Wires {
  /** Names of the veths that exist for tasks. */
  readonly ports: ReadonlySet<string>;
  /** MACs of the peers that are known on the link, by address. */
  readonly macs: ReadonlyMap<string, string>;
  /** The host has nftables see what passes between the ports of a bridge (br_netfilter): that is not ours to change. */
  readonly bridged: boolean;
}

/** What follows from the peers alone. */
interface Ways extends Pick<NodePlan, 'routes' | 'rules' | 'tunnel' | 'wireguard'> {
  readonly groups: ReadonlyMap<string, Group>;
  readonly list: readonly PeerWay[];
  /** Why there is no way to some peers. */
  readonly missing: readonly Fault[];
}

/** A plan, with what the next one can take over. */
export interface Planned {
  readonly plan: NodePlan;
  readonly input: PlanInput;
  readonly around: Surroundings;
  readonly ways: Ways;
  /** What the routes follow from. */
  readonly routing: RouteParts;
  readonly networks: Networks;
  readonly families: readonly Family[];
  /** The endpoints that say who may call them. */
  readonly guarded: readonly Endpoint[];
  readonly tasks: LocalTasks;
  readonly balanced: ReadonlyMap<FamilyName, Balanced>;
}

/**
 * The plan of a revision. With `previous`, the endpoints that are the same objects as then are not looked at: the result
 * is equal to one made without it.
 * A port that two claim is published by the host-mode task, else by the endpoint whose id sorts first.
 */
export function planNode(input: PlanInput, around: Surroundings, previous?: Planned): Planned {
  const networks =
    previous && sameItems(input.networks, previous.input.networks) ? previous.networks : networksOf(input.networks);
  const families = familiesOf(input, networks, previous);
  const same = previous && families === previous.families && sameWays(input, around, previous);
  const ways = same ? previous.ways : planWays(input, around, families);
  const changes = previous && changesOf(input.endpoints, previous.input.endpoints);
  const known = same && networks === previous.networks ? previous.routing.further : undefined;
  const further = furtherRoutes(input, { networks, list: ways.list }, changes, known);
  const routing = { ...input, bridge: bridgeName, networks, families, ways, further };
  const guarded = guardedOf(input, changes, previous);
  const tasks = planTasks(input, { networks, guarded, families, changes, previous });
  const balanced = balance(input, { networks, tasks, families, changes, previous });
  const gateway = gatewayOf(input.subnet);
  const parts = { ways, networks, tasks, balanced };
  const firewalls = new Map(
    families.map((family) => [
      family.name,
      firewallOf(input, { ...parts, bridged: around.bridged, previous: previous?.plan }, family),
    ]),
  );
  const addresses = families.map(({ name, address, range }) =>
    name === 'ip' ? `${gateway}/${prefixOf(input.subnet)}` : `${address(gateway)}/${range(input.subnet).split('/')[1]}`,
  );
  const plan: NodePlan = {
    sysctls: sysctlsOf(ways, families),
    bridge: { mac: macOf(gateway), up: true, addresses },
    ports: around.ports,
    bridged: around.bridged,
    fittings: planFittings(input, around, networks, previous),
    routes: nodeRoutes(routing, previous && { parts: previous.routing, routes: previous.plan.routes }),
    rules: ways.rules,
    tunnel: ways.tunnel,
    wireguard: ways.wireguard,
    firewall: firewalls.get('ip') as Firewall,
    firewall6: firewalls.get('ip6'),
  };
  return { plan, input, around, ways, routing, networks, families, guarded, tasks, balanced };
}

const ipAlone: readonly Family[] = [ip];

/** The same objects as before where nothing of it changed. */
function familiesOf(input: PlanInput, networks: Networks, previous: Planned | undefined): readonly Family[] {
  if (!networks.ipv6 || input.network6 === '') return ipAlone;
  const fields = ['network', 'vipNetwork', 'network6', 'address', 'address6'] as const;
  const same =
    previous &&
    previous.families !== ipAlone &&
    fields.every((field) => input[field] === previous.input[field]) &&
    sameItems(input.peers, previous.input.peers);
  if (same) return previous.families;
  const hosts = [input, ...input.peers].filter(({ address6 }) => tryAddress6(address6) !== undefined);
  return [ip, ip6({ ...input, hosts: new Map(hosts.map(({ address, address6 }) => [address, address6])) })];
}

type Changes = ReadonlyMap<string, Endpoint | undefined>;

/** As before where no endpoint that changed is, or was, one of them. */
function guardedOf(input: PlanInput, changes: Changes | undefined, previous: Planned | undefined): readonly Endpoint[] {
  if (previous && changes) {
    const then = new Set(previous.guarded.map(({ serviceId }) => serviceId as string));
    if (![...changes].some(([id, now]) => now?.allowFrom || then.has(id))) return previous.guarded;
  }
  return input.endpoints.filter(({ allowFrom }) => allowFrom);
}

interface TaskParts {
  readonly networks: Networks;
  readonly guarded: readonly Endpoint[];
  readonly families: readonly Family[];
  readonly changes: Changes | undefined;
  readonly previous: Planned | undefined;
}

function planTasks(input: PlanInput, { networks, guarded, families, changes, previous }: TaskParts): LocalTasks {
  const balanced = previous?.balanced.get('ip');
  const byId = balanced
    ? undefined
    : new Map(input.endpoints.map((endpoint) => [endpoint.serviceId as string, endpoint]));
  const before = (id: string) => balanced && lookUp(balanced.endpoints, id)?.endpoint;
  const serviceOf = (id: string) => (changes?.has(id) ? changes.get(id) : (byId?.get(id) ?? before(id)));
  const same =
    previous &&
    networks === previous.networks &&
    families === previous.families &&
    input.subnet === previous.input.subnet &&
    guarded === previous.guarded &&
    sameItems(input.attachments, previous.input.attachments) &&
    // The name of a service stays; that it has one may be news.
    input.attachments.every(({ serviceId }) => !serviceOf(serviceId) === !before(serviceId));
  if (same) return previous.tasks;
  const tasks = planLocalTasks(input.attachments, { networks, guarded, serviceOf, families });
  const then = previous?.tasks.reached;
  const sameReached = then && then.size === tasks.reached.size && [...then].every((group) => tasks.reached.has(group));
  return sameReached ? { ...tasks, reached: then } : tasks;
}

interface BalanceParts extends Omit<TaskParts, 'guarded'> {
  readonly tasks: LocalTasks;
}

/** The endpoints' elements, in each family: those of `previous` but for what changed, unless a port may have another owner now. */
function balance(input: PlanInput, parts: BalanceParts): ReadonlyMap<FamilyName, Balanced> {
  const { networks, tasks, families, changes, previous } = parts;
  const policy = { networks, reached: tasks.reached };
  const balanced = new Map<FamilyName, Balanced>();
  const before = previous?.balanced.get('ip');
  const follow = previous && before && changes && sameOwners(tasks, changes, previous, before);
  const owned = follow ? undefined : ownersOf(input.endpoints, tasks.claimed);
  const ownedBy = ({ serviceId }: Endpoint) =>
    owned ? (owned.get(serviceId) ?? []) : ((before && lookUp(before.endpoints, serviceId)?.owned) ?? []);
  for (const family of families) {
    const then = previous?.families.includes(family) ? previous.balanced.get(family.name) : undefined;
    const next =
      follow && then
        ? followBalance(then, { ...previous, reached: previous.tasks.reached }, changes, ownedBy, policy, family)
        : balanceEndpoints(input.endpoints, ownedBy, policy, family);
    balanced.set(family.name, next);
  }
  return balanced;
}

function ownersOf(endpoints: readonly Endpoint[], claimedByTasks: ReadonlySet<string>) {
  const claimed = new Set(claimedByTasks);
  const sorted = byText(endpoints, ({ serviceId }) => serviceId);
  return new Map(sorted.map((endpoint) => [endpoint.serviceId, claim(endpoint.ports, 'ingress', claimed)]));
}

/** True where each published port has the owner that it had. */
function sameOwners(tasks: LocalTasks, changes: Changes, previous: Planned, before: Balanced): boolean {
  if (tasks.claimed !== previous.tasks.claimed && !sameSet(tasks.claimed, previous.tasks.claimed)) return false;
  return [...changes].every(([id, now]) => portsText(lookUp(before.endpoints, id)?.endpoint) === portsText(now));
}

function portsText(endpoint: Endpoint | undefined): string {
  return (endpoint?.ports ?? []).map((port) => `${port.mode} ${portKey(port)} ${port.target}`).join();
}

type FirewallParts = Pick<Planned, 'ways' | 'networks' | 'tasks' | 'balanced'> &
  Pick<Surroundings, 'bridged'> & { readonly previous: NodePlan | undefined };

function firewallOf(input: PlanInput, parts: FirewallParts, family: Family): Firewall {
  const { ways, networks, tasks, balanced, bridged } = parts;
  const { endpoints, chains, members } = balanced.get(family.name) as Balanced;
  const groups = new Map([
    ...(tasks.groups.get(family.name) ?? []),
    ...(family.name === 'ip' ? ways.groups : [hosts6Of(input, family)]),
    insideOf(input, networks, family),
  ]);
  const names = new Set(chains.keys());
  for (const group of groups.values()) for (const chain of group.chains) names.add(chain);
  const words: RuleWords = {
    family: family.name,
    subnet: family.range(formatCidr(parseCidr(input.subnet))),
    network: family.range(input.network),
    vipNetwork: family.range(input.vipNetwork),
    gateway: family.address(gatewayOf(input.subnet)) as string,
    bridge: bridgeName,
    isolated: networks.isolated,
    bridged,
    encrypted: input.encryption === 'wireguard',
    tunnelled: input.encryption === 'wireguard' || ways.tunnel !== undefined,
  };
  for (const name of tasks.reaches.keys()) names.add(name);
  const before = family.name === 'ip' ? parts.previous?.firewall : parts.previous?.firewall6;
  const made = { family: family.name, words, names, groups, endpoints, members };
  if (before && sameSet(names, before.names) && sameWords(words, before.words)) {
    return { ...made, declarations: before.declarations };
  }
  const dispatch = new Map(
    [...names].map((name) => {
      const reach = tasks.reaches.get(name);
      return [name, reach ? reachChain(reach, words) : dispatchChain(name, family.name)];
    }),
  );
  return { ...made, declarations: declarationsOf(words, dispatch) };
}

function sameWords(one: RuleWords, other: RuleWords): boolean {
  return (Object.keys(one) as (keyof RuleWords)[]).every((field) => one[field] === other[field]);
}

/** What is within the cluster: its network, and the further subnets of networks. */
function insideOf(input: PlanInput, { subnets }: Networks, family: Family): readonly [string, Group] {
  const further = family.name === 'ip' ? subnets : [];
  const ranges = [family.range(formatCidr(parseCidr(input.network))), ...further];
  return ['inside', { elements: new Map(ranges.map((range) => [`inside ${range}`, ''])), chains: [] }];
}

function hosts6Of(input: PlanInput, family: Family): readonly [string, Group] {
  const ends = [input.subnet, ...input.peers.map(({ subnet }) => subnet)].flatMap((subnet) =>
    subnet === '' ? [] : [endOf(subnet)],
  );
  const addresses = [input.address, ...input.peers.map(({ address }) => address), ...ends].flatMap((host) => {
    const address = tryAddress(host) === undefined ? undefined : family.address(host);
    return address === undefined ? [] : [address];
  });
  return ['hosts', { elements: new Map(addresses.map((address) => [`hosts ${address}`, ''])), chains: [] }];
}

function planFittings(
  input: PlanInput,
  around: Surroundings,
  networks: Networks,
  previous: Planned | undefined,
): NodePlan['fittings'] {
  const same =
    previous &&
    networks === previous.networks &&
    sameSet(around.ports, previous.around.ports) &&
    sameItems(input.attachments, previous.input.attachments) &&
    (['subnet', 'network', 'vipNetwork', 'network6'] as const).every((field) => input[field] === previous.input[field]);
  if (same) return previous.plan.fittings;
  return new Map(
    input.attachments.flatMap((task) => {
      if (!around.ports.has(portNameOf(task.taskId))) return [];
      const fittings = fittingsOf(task, networks, input);
      return fittings.size === 0 ? [] : [[task.taskId, fittings]];
    }),
  );
}

function planWays(input: PlanInput, around: Surroundings, families: readonly Family[]): Ways {
  const wanted = { ...input, bridge: bridgeName };
  const list = waysOf(input, around, families.length > 1 ? input : undefined);
  const paths = returnPaths(wanted, list, around.macs);
  const tunnel = tunnelOf(input, list, around, families);
  return {
    list,
    missing: waysMissing(input, list),
    routes: new Map([...routesOf(wanted, list), ...paths.routes].map((route) => [routeKey(route), route])),
    rules: new Map(paths.rules.map((rule) => [describeRule(rule), rule])),
    tunnel,
    wireguard: wireguardOf(input, list, around),
    groups: new Map([
      ['hosts', { elements: hostsOf(input, list), chains: [] }],
      ['peers', { elements: paths.elements, chains: [] }],
      ['tunnels', { elements: tunnelEnds(tunnel), chains: [] }],
    ]),
  };
}

/** Whom tunnels' packets are from and for. */
function tunnelEnds(tunnel: Tunnel | undefined): Elements {
  if (!tunnel) return new Map();
  const { local } = tunnel.device;
  const peers = [...tunnel.forwarding.values()].map((underlay) => [`tunnels ${underlay} . ${local}`, ''] as const);
  return new Map([[`tunnel_ends ${local}`, ''], ...peers]);
}

/** Of our own devices the loose reverse path check is made: what comes by a tunnel may be from anywhere. */
function sysctlsOf({ tunnel, wireguard }: Ways, families: readonly Family[]): ReadonlyMap<string, string> {
  const links = [...(tunnel ? [tunnelName] : []), ...(wireguard ? [wireguardName] : [])];
  return new Map([
    ['net.ipv4.ip_forward', '1'],
    // All of a task's packets turn round on the bridge; and of what it is told, redirects would leave no room for refusals.
    ['net.ipv4.conf.all.send_redirects', '0'],
    [`net.ipv4.conf.${bridgeName}.send_redirects`, '0'],
    ...(families.length > 1 ? [['net.ipv6.conf.all.forwarding', '1'] as const] : []),
    ...links.map((link) => [`net.ipv4.conf.${link}.rp_filter`, '2'] as const),
  ]);
}

function sameWays(input: PlanInput, around: Surroundings, { input: before, around: then }: Planned): boolean {
  const fields = [
    'nodeId',
    'address',
    'address6',
    'subnet',
    'network',
    'network6',
    'vipNetwork',
    'link',
    'segment',
  ] as const;
  const settings = ['encapsulation', 'encryption'] as const;
  return (
    sameWires(around, then) &&
    [...fields, ...settings].every((field) => input[field] === before[field]) &&
    input.peers.length === before.peers.length &&
    input.peers.every((peer, index) => peer === before.peers[index])
  );
}

/** True where what is known of the wires is the same news. */
export function sameWires(one: Surroundings, other: Surroundings): boolean {
  const fields = ['macs', 'mtus', 'linkMtu', 'wireguardKey', 'bridged'] as const;
  return fields.every((field) => one[field] === other[field]);
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
  for (const member of keysOf(firewall.members)) all.set(member, '');
  return all;
}

/** By a tunnel, a host sends with the address of its end of it. */
function hostsOf(input: PlanInput, ways: readonly PeerWay[]): Elements {
  const elements = new Map<string, string>();
  const ends = ways.flatMap(({ mac, gateway }) => (mac === undefined ? [] : [gateway]));
  if (ends.length > 0) ends.push(endOf(input.subnet));
  for (const address of [input.address, ...input.peers.map((peer) => peer.address), ...ends]) {
    // A node's own word, and this text is a command: what is no address stays out.
    if (tryAddress(address) !== undefined) elements.set(`hosts ${address}`, '');
  }
  return elements;
}

function sameItems<T>(a: readonly T[], b: readonly T[]): boolean {
  return a === b || (a.length === b.length && a.every((item, index) => item === b[index]));
}

export function sameSet(a: ReadonlySet<string>, b: ReadonlySet<string>): boolean {
  return a.size === b.size && [...a].every((item) => b.has(item));
}
