/** From what the kernel holds to what it should hold: the named steps between them, each with its why. */
import type { Elements } from './balance.ts';
import { type Bridge, elementsOf, type Firewall, isPortName, type NodePlan } from './node-plan.ts';
import type { Rule } from './return-path.ts';
import { describeRoute, type Route, routeKey } from './routes.ts';
import { type Declarations, isDispatchChain } from './rules.ts';
import { changesBetween } from './shards.ts';

/** Our links, addresses, routes and settings, as read back. */
export interface LinksSeen {
  readonly sysctls: ReadonlyMap<string, string>;
  readonly bridge: Bridge | undefined;
  readonly ports: ReadonlySet<string>;
  readonly routes: ReadonlyMap<string, Route>;
  readonly rules: ReadonlyMap<string, Rule>;
}

/** Our nftables table, as read back. */
export interface TableSeen {
  /** Bodies as planned where the kernel's form of them is equal, else the kernel's own words. */
  readonly declarations: Declarations;
  readonly elements: Elements;
}

/** One effect on the kernel. */
export type NetStep = { readonly why: string } & (
  | { readonly kind: 'sysctl'; readonly name: string; readonly value: string }
  | { readonly kind: 'bridge'; readonly mac: string }
  | { readonly kind: 'address-add' | 'address-remove'; readonly address: string }
  | { readonly kind: 'port' | 'port-remove'; readonly port: string }
  | { readonly kind: 'route'; readonly route: Route }
  | { readonly kind: 'route-remove'; readonly route: Route }
  | { readonly kind: 'rule' | 'rule-remove'; readonly rule: Rule }
  | { readonly kind: 'table-replace'; readonly declarations: Declarations; readonly elements: Elements }
  | ({ readonly kind: 'table-update' } & TableChange)
);

/** A change of elements and dispatch chains; an element whose value changes is in both lists. */
export interface TableChange {
  readonly addChains: readonly string[];
  readonly removeElements: readonly string[];
  readonly addElements: readonly (readonly [string, string])[];
  readonly removeChains: readonly string[];
}

/** The steps that make the links, addresses, routes and settings those of `plan`, in an order in which they can be taken. */
export function diffLinks(plan: NodePlan, seen: LinksSeen): NetStep[] {
  const steps: NetStep[] = [];
  for (const [name, value] of plan.sysctls) {
    const now = seen.sysctls.get(name);
    if (now !== value) steps.push({ kind: 'sysctl', name, value, why: `${name} was ${now ?? 'unset'}, not ${value}` });
  }
  const { bridge } = plan;
  if (!seen.bridge) steps.push({ kind: 'bridge', mac: bridge.mac, why: 'the bridge was missing' });
  else if (!seen.bridge.up) steps.push({ kind: 'bridge', mac: bridge.mac, why: 'the bridge was down' });
  else if (seen.bridge.mac !== bridge.mac) {
    steps.push({ kind: 'bridge', mac: bridge.mac, why: `the bridge had the MAC ${seen.bridge.mac}` });
  }
  for (const address of seen.bridge?.addresses ?? []) {
    if (bridge.addresses.includes(address)) continue;
    steps.push({ kind: 'address-remove', address, why: `address ${address} is not the bridge's` });
  }
  for (const address of bridge.addresses) {
    if (seen.bridge?.addresses.includes(address)) continue;
    steps.push({ kind: 'address-add', address, why: `address ${address} of the bridge was missing` });
  }
  for (const port of plan.ports) {
    if (!seen.ports.has(port))
      steps.push({ kind: 'port', port, why: `link ${port} was missing, down or off the bridge` });
  }
  for (const port of seen.ports) {
    if (!isPortName(port) || plan.ports.has(port)) continue;
    steps.push({ kind: 'port-remove', port, why: `link ${port} belongs to no task` });
  }
  steps.push(...diffRoutes(plan.routes, seen), ...diffRules(plan.rules, seen.rules));
  return steps;
}

function diffRoutes(routes: ReadonlyMap<string, Route>, seen: LinksSeen): NetStep[] {
  const steps: NetStep[] = [];
  for (const route of seen.routes.values()) {
    if (!routes.has(routeKey(route))) {
      steps.push({ kind: 'route-remove', route, why: `route ${describeRoute(route)} leads to nobody` });
    }
  }
  for (const route of routes.values()) {
    const now = seen.routes.get(routeKey(route));
    // The kernel drops the routes of a link that goes away or down.
    const dropped = route.type === 'link' && !seen.bridge?.up;
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

/** The steps that make the table what is wanted; at most one. */
export function diffTable(wanted: Firewall, seen: TableSeen | undefined): NetStep[] {
  const replace = (why: string): NetStep[] => [
    { kind: 'table-replace', declarations: wanted.declarations, elements: elementsOf(wanted), why },
  ];
  if (!seen) return replace('table ip gantry was missing');
  for (const [name, body] of wanted.declarations) {
    const now = seen.declarations.get(name);
    if (now === body || (now === undefined && isDispatchChain(name))) continue;
    return replace(`${name} of table ip gantry was ${now === undefined ? 'missing' : 'changed'}`);
  }
  for (const name of seen.declarations.keys()) {
    if (wanted.declarations.has(name) || isDispatchChain(name)) continue;
    return replace(`${name} of table ip gantry is not ours`);
  }
  return update(wanted.declarations, seen.declarations, elementsOf(wanted), seen.elements);
}

/** As diffTable, when the kernel is known to hold `before`: only groups that are other objects are looked at. */
export function diffFirewalls(wanted: Firewall, before: Firewall): NetStep[] {
  for (const [name, body] of wanted.declarations) {
    if (before.declarations.get(name) === body || isDispatchChain(name)) continue;
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
  return update(wanted.declarations, before.declarations, now, then);
}

function update(wanted: Declarations, seen: Declarations, now: Elements, then: Elements): NetStep[] {
  const change = {
    addChains: [...wanted.keys()].filter((name) => !seen.has(name)),
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
  return why.length === 0 ? [] : [{ kind: 'table-update', ...change, why: `${why.join(', ')} in table ip gantry` }];
}
