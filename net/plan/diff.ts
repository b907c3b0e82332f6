/** From what the kernel holds to what it should hold: the named steps between them, each with its why. */
import type { Elements } from './balance.ts';
import type { FamilyName } from './family.ts';
import type { Fitting, Fittings } from './fittings.ts';
import {
  type Bridge,
  bridgeName,
  elementsOf,
  type Firewall,
  isPortName,
  type NodePlan,
  portNameOf,
} from './node-plan.ts';
import type { Rule } from './return-path.ts';
import { describeRoute, type Route, routeKey } from './routes.ts';
import { type Declarations, isDispatchChain } from './rules.ts';
import { changesBetween } from './shards.ts';
import {
  describeWireGuard,
  sameMake,
  type Tunnel,
  type TunnelDevice,
  tunnelName,
  type WireGuard,
  wireguardName,
} from './tunnel.ts';

/** Our links, addresses, routes and settings, as read back. */
export interface LinksSeen {
  readonly sysctls: ReadonlyMap<string, string>;
  readonly bridge: Bridge | undefined;
  /** Those that are up, on the bridge, and shut off from each other as `bridged` asks for. */
  readonly ports: ReadonlySet<string>;
  readonly bridged: boolean;
  /** Those that are as wanted. */
  readonly fittings: ReadonlyMap<string, Fittings>;
  readonly routes: ReadonlyMap<string, Route>;
  readonly rules: ReadonlyMap<string, Rule>;
  /** Undefined where there is no such device, or one that has to be made anew. */
  readonly tunnel: Tunnel | undefined;
  readonly wireguard: WireGuard | undefined;
}

/** Our nftables tables, as read back. */
export interface TablesSeen {
  readonly ip: TableSeen | undefined;
  readonly ip6: TableSeen | undefined;
}

export interface TableSeen {
  /** Bodies as planned where the kernel's form of them is equal, else the kernel's own words. */
  readonly declarations: Declarations;
  readonly elements: Elements;
}

/** One effect on the kernel. */
export type NetStep = { readonly why: string } & (
  | { readonly kind: 'sysctl'; readonly name: string; readonly value: string }
  | { readonly kind: 'bridge'; readonly mac: string }
  | { readonly kind: 'address-add' | 'address-remove'; readonly address: string; readonly link: string }
  /** Makes the device, in place of any that has its name. */
  | { readonly kind: 'tunnel'; readonly device: TunnelDevice }
  | { readonly kind: 'tunnel-set'; readonly device: TunnelDevice }
  | { readonly kind: 'tunnel-remove' | 'wireguard-remove' }
  | { readonly kind: 'forwarding' | 'forwarding-remove'; readonly mac: string; readonly underlay: string }
  | { readonly kind: 'neighbour' | 'neighbour-remove'; readonly address: string; readonly mac: string }
  | { readonly kind: 'wireguard'; readonly wireguard: WireGuard }
  | { readonly kind: 'port'; readonly port: string; readonly bridged: boolean }
  | { readonly kind: 'port-remove'; readonly port: string }
  | { readonly kind: 'fitting'; readonly taskId: string; readonly fitting: Fitting }
  | { readonly kind: 'route'; readonly route: Route }
  | { readonly kind: 'route-remove'; readonly route: Route }
  | { readonly kind: 'rule' | 'rule-remove'; readonly rule: Rule }
  | {
      readonly kind: 'table-replace';
      readonly family: FamilyName;
      readonly declarations: Declarations;
      readonly elements: Elements;
    }
  | { readonly kind: 'table-remove'; readonly family: FamilyName }
  | ({ readonly kind: 'table-update' } & TableChange)
);

/** A change of elements and dispatch chains; an element whose value changes is in both lists. */
export interface TableChange {
  readonly family: FamilyName;
  /** Names and bodies. */
  readonly addChains: readonly (readonly [string, string])[];
  readonly removeElements: readonly string[];
  readonly addElements: readonly (readonly [string, string])[];
  readonly removeChains: readonly string[];
}

/** The steps that make the links, addresses, routes and settings those of `plan`, in an order in which they can be taken. */
export function diffLinks(plan: NodePlan, seen: LinksSeen): NetStep[] {
  const settings = diffSettings(plan.sysctls, seen.sysctls);
  const { bridge } = plan;
  const steps: NetStep[] = settings.filter((step) => !isOfLink(step));
  if (!seen.bridge) steps.push({ kind: 'bridge', mac: bridge.mac, why: 'the bridge was missing' });
  else if (!seen.bridge.up) steps.push({ kind: 'bridge', mac: bridge.mac, why: 'the bridge was down' });
  else if (seen.bridge.mac !== bridge.mac) {
    steps.push({ kind: 'bridge', mac: bridge.mac, why: `the bridge had the MAC ${seen.bridge.mac}` });
  }
  steps.push(...diffAddresses('the bridge', bridgeName, bridge.addresses, seen.bridge?.addresses ?? []));
  for (const port of plan.ports) {
    if (seen.ports.has(port) && seen.bridged === plan.bridged) continue;
    const why = seen.ports.has(port)
      ? `link ${port} was shut off from the others in another way`
      : `link ${port} was missing, down, off the bridge or open to others`;
    steps.push({ kind: 'port', port, bridged: plan.bridged, why });
  }
  for (const port of seen.ports) {
    if (!isPortName(port) || plan.ports.has(port)) continue;
    steps.push({ kind: 'port-remove', port, why: `link ${port} belongs to no task` });
  }
  steps.push(...routesLeft(plan.routes, seen.routes));
  steps.push(...diffFittings(plan, seen));
  steps.push(...diffWireGuard(plan.wireguard, seen.wireguard), ...diffTunnel(plan.tunnel, seen.tunnel));
  steps.push(...settings.filter(isOfLink));
  steps.push(...diffRoutes(plan.routes, seen, remadeLinks(plan, seen)), ...diffRules(plan.rules, seen.rules));
  // Only now does no route lead to them.
  if (seen.tunnel && !plan.tunnel) steps.push({ kind: 'tunnel-remove', why: `${tunnelName} leads to nobody` });
  if (seen.wireguard && !plan.wireguard)
    steps.push({ kind: 'wireguard-remove', why: `${wireguardName} leads to nobody` });
  return steps;
}

function diffFittings(plan: NodePlan, seen: LinksSeen): NetStep[] {
  const steps: NetStep[] = [];
  for (const [taskId, fittings] of plan.fittings) {
    // A link that is made anew comes without them.
    const there = seen.ports.has(portNameOf(taskId)) ? seen.fittings.get(taskId) : undefined;
    if (there === fittings) continue;
    for (const [text, fitting] of fittings) {
      if (there?.has(text)) continue;
      steps.push({ kind: 'fitting', taskId, fitting, why: `${text} of task ${taskId} was missing` });
    }
  }
  return steps;
}

function diffSettings(settings: NodePlan['sysctls'], seen: LinksSeen['sysctls']): NetStep[] {
  const steps: NetStep[] = [];
  for (const [name, value] of settings) {
    const now = seen.get(name);
    if (now !== value) steps.push({ kind: 'sysctl', name, value, why: `${name} was ${now ?? 'unset'}, not ${value}` });
  }
  return steps;
}

/** True for a setting that exists as long as a link of ours. */
function isOfLink(step: NetStep): boolean {
  return step.kind === 'sysctl' && /^net\.ipv[46]\.conf\.gantry/.test(step.name);
}

function diffAddresses(what: string, link: string, wanted: readonly string[], seen: readonly string[]): NetStep[] {
  const steps: NetStep[] = [];
  for (const address of seen) {
    if (wanted.includes(address)) continue;
    steps.push({ kind: 'address-remove', link, address, why: `address ${address} is not that of ${what}` });
  }
  for (const address of wanted) {
    if (seen.includes(address)) continue;
    steps.push({ kind: 'address-add', link, address, why: `address ${address} of ${what} was missing` });
  }
  return steps;
}

function diffTunnel(wanted: Tunnel | undefined, now: Tunnel | undefined): NetStep[] {
  if (!wanted || wanted === now) return [];
  const { device } = wanted;
  const seen = now && sameMake(now.device, device) ? now : undefined;
  const steps: NetStep[] = [];
  if (!seen) {
    const why = now ? `${tunnelName} sent from ${now.device.local}` : `the tunnel ${tunnelName} was missing`;
    steps.push({ kind: 'tunnel', device, why });
  } else if (!seen.device.up) steps.push({ kind: 'tunnel-set', device, why: `the tunnel ${tunnelName} was down` });
  else if (seen.device.mac !== device.mac || seen.device.mtu !== device.mtu) {
    const why = `the tunnel ${tunnelName} had MAC ${seen.device.mac} and MTU ${seen.device.mtu}`;
    steps.push({ kind: 'tunnel-set', device, why });
  }
  steps.push(...diffAddresses('the tunnel', tunnelName, device.addresses, seen?.device.addresses ?? []));
  for (const [mac, underlay] of seen?.forwarding ?? []) {
    if (wanted.forwarding.has(mac)) continue;
    steps.push({ kind: 'forwarding-remove', mac, underlay, why: `tunnel entry ${mac} to ${underlay} leads to nobody` });
  }
  for (const [mac, underlay] of wanted.forwarding) {
    const now = seen?.forwarding.get(mac);
    if (now === underlay) continue;
    const was = now === undefined ? 'was missing' : `led to ${now}`;
    steps.push({ kind: 'forwarding', mac, underlay, why: `tunnel entry ${mac} to ${underlay} ${was}` });
  }
  for (const [address, mac] of seen?.neighbours ?? []) {
    if (wanted.neighbours.has(address)) continue;
    steps.push({ kind: 'neighbour-remove', address, mac, why: `neighbour ${address} of the tunnel is nobody` });
  }
  for (const [address, mac] of wanted.neighbours) {
    const now = seen?.neighbours.get(address);
    if (now === mac) continue;
    const was = now === undefined ? 'was missing' : `was ${now}`;
    steps.push({ kind: 'neighbour', address, mac, why: `neighbour ${address} (${mac}) of the tunnel ${was}` });
  }
  return steps;
}

function diffWireGuard(wanted: WireGuard | undefined, seen: WireGuard | undefined): NetStep[] {
  if (!wanted || wanted === seen) return [];
  if (seen && describeWireGuard(seen) === describeWireGuard(wanted)) return [];
  const was = seen ? 'had another configuration' : 'was missing';
  return [{ kind: 'wireguard', wireguard: wanted, why: `the tunnel ${wireguardName} ${was}` }];
}

/** The links that were missing, down or of another make: the kernel has dropped, or will drop, the routes by them. */
function remadeLinks(plan: NodePlan, seen: LinksSeen): ReadonlySet<string> {
  const links = new Set<string>();
  if (!seen.bridge?.up) links.add(bridgeName);
  if (!seen.wireguard?.up) links.add(wireguardName);
  if (!seen.tunnel?.device.up || (plan.tunnel && !sameMake(plan.tunnel.device, seen.tunnel.device))) {
    links.add(tunnelName);
  }
  return links;
}

function routesLeft(routes: NodePlan['routes'], seen: LinksSeen['routes']): NetStep[] {
  if (routes === seen) return [];
  const left = [...seen].filter(([key]) => !routes.has(key));
  return left.map(([, route]) => ({
    kind: 'route-remove',
    route,
    why: `route ${describeRoute(route)} leads to nobody`,
  }));
}

function diffRoutes(routes: NodePlan['routes'], seen: LinksSeen, remade: ReadonlySet<string>): NetStep[] {
  if (routes === seen.routes && remade.size === 0) return [];
  const steps: NetStep[] = [];
  for (const route of routes.values()) {
    const now = seen.routes.get(routeKey(route));
    const dropped = route.type !== 'unreachable' && route.link !== undefined && remade.has(route.link);
    if (now && !dropped && (now === route || describeRoute(now) === describeRoute(route))) continue;
    const was = now && !dropped ? `was ${describeRoute(now)}` : 'was missing';
    steps.push({ kind: 'route', route, why: `route ${describeRoute(route)} ${was}` });
  }
  return steps;
}

function diffRules(rules: ReadonlyMap<string, Rule>, seen: ReadonlyMap<string, Rule>): NetStep[] {
  if (rules === seen) return [];
  const steps: NetStep[] = [];
  for (const [text, rule] of seen) {
    if (!rules.has(text)) steps.push({ kind: 'rule-remove', rule, why: `rule ${text} leads to nobody` });
  }
  for (const [text, rule] of rules) {
    if (!seen.has(text)) steps.push({ kind: 'rule', rule, why: `rule ${text} was missing` });
  }
  return steps;
}

/** The steps that make our tables what is wanted; at most one for each. */
export function diffTables(plan: NodePlan, seen: TablesSeen): NetStep[] {
  const steps = diffTable(plan.firewall, seen.ip);
  if (plan.firewall6) return [...steps, ...diffTable(plan.firewall6, seen.ip6)];
  return seen.ip6 ? [...steps, removeTable('ip6')] : steps;
}

/** As diffTables, when the kernel is known to hold `before`. */
export function diffPlans(plan: NodePlan, before: NodePlan): NetStep[] {
  const steps = diffFirewalls(plan.firewall, before.firewall);
  if (plan.firewall6) {
    const then = before.firewall6;
    return [...steps, ...(then ? diffFirewalls(plan.firewall6, then) : diffTable(plan.firewall6, undefined))];
  }
  return before.firewall6 ? [...steps, removeTable('ip6')] : steps;
}

function removeTable(family: FamilyName): NetStep {
  return { kind: 'table-remove', family, why: `table ${family} gantry is of no use` };
}

/** The steps that make one table what is wanted; at most one. */
export function diffTable(wanted: Firewall, seen: TableSeen | undefined): NetStep[] {
  const { family, declarations } = wanted;
  const replace = (why: string): NetStep[] => [
    { kind: 'table-replace', family, declarations, elements: elementsOf(wanted), why },
  ];
  if (!seen) return replace(`table ${family} gantry was missing`);
  for (const [name, body] of declarations) {
    const now = seen.declarations.get(name);
    if (now === body || (now === undefined && isDispatchChain(name))) continue;
    return replace(`${name} of table ${family} gantry was ${now === undefined ? 'missing' : 'changed'}`);
  }
  for (const name of seen.declarations.keys()) {
    if (declarations.has(name) || isDispatchChain(name)) continue;
    return replace(`${name} of table ${family} gantry is not ours`);
  }
  return update(wanted, seen.declarations, elementsOf(wanted), seen.elements);
}

/** As diffTable, when the kernel is known to hold `before`: only groups that are other objects are looked at. */
export function diffFirewalls(wanted: Firewall, before: Firewall): NetStep[] {
  for (const [name, body] of wanted.declarations) {
    const then = before.declarations.get(name);
    if (then === body || (then === undefined && isDispatchChain(name))) continue;
    return diffTable(wanted, { declarations: before.declarations, elements: new Map() });
  }
  const now = new Map<string, string>();
  const then = new Map<string, string>();
  const collect = (into: Map<string, string>, elements: Elements | undefined) => {
    for (const [element, value] of elements ?? []) into.set(element, value);
  };
  for (const [key, group] of wanted.groups) {
    const old = before.groups.get(key);
    if (old === group) continue;
    collect(now, group.elements);
    collect(then, old?.elements);
  }
  for (const [key, group] of before.groups) if (!wanted.groups.has(key)) collect(then, group.elements);
  for (const [, group, old] of changesBetween(wanted.endpoints, before.endpoints)) {
    collect(now, group?.elements);
    collect(then, old?.elements);
  }
  for (const [member, count, old] of changesBetween(wanted.members, before.members)) {
    if (count !== undefined) now.set(member, '');
    if (old !== undefined) then.set(member, '');
  }
  return update(wanted, before.declarations, now, then);
}

function update(
  { family, declarations: wanted }: Firewall,
  seen: Declarations,
  now: Elements,
  then: Elements,
): NetStep[] {
  const change = {
    family,
    addChains: [...wanted].filter(([name]) => !seen.has(name)),
    removeElements: [...then].filter(([element, value]) => now.get(element) !== value).map(([element]) => element),
    addElements: [...now].filter(([element, value]) => then.get(element) !== value),
    removeChains: [...seen.keys()].filter((name) => !wanted.has(name)),
  };
  const parts = [
    [change.addChains.length, 'chains were missing'],
    [change.removeElements.length, 'elements were wrong'],
    [change.addElements.length, 'elements were missing'],
    [change.removeChains.length, 'chains were left over'],
  ] as const;
  const why = parts.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`);
  return why.length === 0
    ? []
    : [{ kind: 'table-update', ...change, why: `${why.join(', ')} in table ${family} gantry` }];
}
