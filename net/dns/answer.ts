/** What a name means to the task that asks: a pure function of one revision. */
import { containsAddress } from '#net/plan/cidr.ts';
import { embed6, embeddedAddress } from '#net/plan/cidr6.ts';
import type { Backend, Endpoint } from '#proto/model/assignment.ts';
import { type Asker, askerAt, called, calledOn, type DnsView, havingAddress } from './view.ts';

/** Seconds an answer may be kept: names follow tasks within that. */
export const ttlSeconds = 1;

export interface DnsQuestion {
  /** With or without the last dot. */
  readonly name: string;
  /** A, AAAA, PTR, ANY; or any other word. */
  readonly type: string;
}

export type DnsRecord =
  | { readonly type: 'A' | 'AAAA'; readonly address: string }
  | { readonly type: 'PTR'; readonly target: string };

export type DnsAnswer =
  /** The name is not ours: ask `servers`; none: the host's. */
  | { readonly kind: 'forward'; readonly servers: readonly string[] }
  /** There is no such name, for this asker. */
  | { readonly kind: 'unknown' }
  /** Whoever asks is no task, nor this node. */
  | { readonly kind: 'refused' }
  /** All of them named as the question is. */
  | { readonly kind: 'records'; readonly records: readonly DnsRecord[] };

const unknown: DnsAnswer = { kind: 'unknown' };

/** The answer to who asks from `source`. `turn` rotates the addresses, so that clients that take the first one spread. */
export function answer(view: DnsView, question: DnsQuestion, source: string, turn: number): DnsAnswer {
  const asker = askerAt(view, source);
  if (!asker) return { kind: 'refused' };
  const name = question.name.toLowerCase().replace(/\.$/, '');
  if (/\.(in-addr|ip6)\.arpa$/.test(name)) return answerReverse(view, asker, question, name);
  const ours = name === view.domain || name.endsWith(`.${view.domain}`);
  const labels = (ours ? name.slice(0, -view.domain.length - 1) : name).split('.').filter((label) => label !== '');
  const found = labels.length > 0 ? resolve(view, asker, labels) : ours ? [] : undefined;
  if (!found) return ours ? unknown : outside(view, asker);
  if (found === 'missing') return unknown;
  return { kind: 'records', records: rotated(recordsOf(found, question.type), turn) };
}

/** What a task with no way out asks of the world does not exist for it: said at once, where a failure would be tried again. */
function outside(view: DnsView, asker: Asker): DnsAnswer {
  const { networks = [] } = asker;
  const shutIn = networks.length > 0 && networks.every((network) => view.networks.get(network)?.internal);
  return shutIn ? unknown : { kind: 'forward', servers: asker.dns };
}

function answerReverse(view: DnsView, asker: Asker, question: DnsQuestion, name: string): DnsAnswer {
  const address = addressOfArpa(view, name);
  if (address === undefined) return outside(view, asker);
  const owner = havingAddress(view, address).find((endpoint) => wayTo(view, asker, endpoint));
  if (owner) {
    const target = nameOf(view, owner, address);
    // Without a record of another type, the name is there all the same.
    const asked = question.type === 'PTR' || question.type === 'ANY';
    return { kind: 'records', records: asked ? [{ type: 'PTR', target }] : [] };
  }
  return isOurs(view, address) ? unknown : outside(view, asker);
}

/** The IPv4 address that a name in in-addr.arpa or ip6.arpa is about; undefined for one of the world's IPv6. */
function addressOfArpa(view: DnsView, name: string): string | undefined {
  const parts = name.split('.').slice(0, -2).reverse();
  if (name.endsWith('.in-addr.arpa')) return parts.join('.');
  if (parts.length !== 32) return undefined;
  const groups = Array.from({ length: 8 }, (_, index) => parts.slice(index * 4, index * 4 + 4).join(''));
  return embeddedAddress(view.network6, groups.join(':'));
}

function isOurs(view: DnsView, address: string): boolean {
  const ranges = [view.network, view.vipNetwork];
  for (const { subnets } of view.networks.values()) ranges.push(...subnets.map(({ subnet }) => subnet));
  return ranges.some((range) => containsAddress(range, address));
}

/** `NAME.PROJECT.DOMAIN` of a VIP; of a task's address with its slot, or its node where there is a task per node, before it. */
function nameOf(view: DnsView, endpoint: Endpoint, address: string): string {
  const full = `${endpoint.name}.${endpoint.project}.${view.domain}`;
  if (endpoint.vip === address) return full;
  const having = (backend: Backend) => [backend, ...backend.addresses].some((item) => item.address === address);
  const task =
    endpoint.backends.find((backend) => backend.serving && having(backend)) ?? endpoint.backends.find(having);
  return task ? `${seatOf(task)}.${full}` : full;
}

interface Found {
  readonly address: string;
  /** '': it has none that the asker could use. */
  readonly address6: string;
}

/** Addresses; `missing`: a task's name, and there is no such task; undefined: nothing of ours is called so. */
type Resolved = readonly Found[] | 'missing' | undefined;

/** Within the asker's project, else with the last label as the project, else where only one project has the name. */
function resolve(view: DnsView, asker: Asker, labels: readonly string[]): Resolved {
  const own = asker.project === '' ? undefined : resolveIn(view, asker, labels, asker.project);
  if (own && own !== 'missing') return own;
  const named = labels.length > 1 ? resolveIn(view, asker, labels.slice(0, -1), labels.at(-1) as string) : undefined;
  if (named && named !== 'missing') return named;
  const name = labels.length === 2 && labels[0] === 'tasks' ? (labels[1] as string) : labels.join('.');
  const projects = new Set(visible(view, asker, name).map((endpoint) => endpoint.project));
  const [only, ...others] = projects;
  const single = only !== undefined && others.length === 0 ? resolveIn(view, asker, labels, only) : undefined;
  return single ?? own ?? named;
}

/** `NAME` (which may have dots), `tasks.NAME`, `N.NAME` or `NAME.N` (N: a slot, or a node's name where there is a task per node). */
function resolveIn(view: DnsView, asker: Asker, labels: readonly string[], project: string): Resolved {
  const find = (name: string) => visible(view, asker, name).filter((endpoint) => endpoint.project === project);
  const whole = find(labels.join('.'));
  if (whole.length > 0) return unique(whole.flatMap((endpoint) => addressesOf(view, asker, endpoint)));
  const [first = '', second] = labels;
  if (labels.length !== 2 || second === undefined) return undefined;
  const last = find(second);
  if (first === 'tasks') {
    return last.length > 0 ? unique(last.flatMap((endpoint) => tasksOf(view, asker, endpoint))) : undefined;
  }
  return seated(view, asker, last, first) ?? seated(view, asker, find(first), second);
}

/** The services that the asker may know by that name: a link of its own, else those it shares a network with. */
function visible(view: DnsView, asker: Asker, name: string): readonly Endpoint[] {
  if (!asker.networks) return called(view, name);
  const { networks } = asker;
  const on = (text: string) => [...new Set(networks.flatMap((network) => calledOn(view, network, text)))];
  const links = asker.links.filter((link) => link.alias.toLowerCase() === name);
  const linked = links.flatMap((link) => {
    const services = on(link.service.toLowerCase());
    return services.filter((endpoint) => endpoint.project === asker.project && endpoint.name === link.service);
  });
  return linked.length > 0 ? linked : on(name);
}

/** How an asker reaches a service. */
interface Way {
  readonly vip: boolean;
  /** The network whose own addresses are answered; undefined: the primary ones. */
  readonly network: string | undefined;
  readonly six: boolean;
}

/** undefined where they share no network. */
function wayTo(view: DnsView, asker: Asker, endpoint: Endpoint): Way | undefined {
  const vip = endpoint.mode === 'vip' && endpoint.vip !== '';
  if (!asker.networks) return { vip, network: undefined, six: endpoint.ipv6 && view.network6 !== '' };
  const shared = asker.networks.filter((name) => endpoint.networks.some((membership) => membership.network === name));
  if (shared.length === 0) return undefined;
  const spec = (name: string) => view.networks.get(name);
  // On a network of the hosts (macvlan) there are no VIPs, nor ways by our routes.
  const routed = shared.filter((name) => spec(name)?.driver !== 'macvlan');
  const network = (routed.length > 0 ? routed : shared).find((name) => (spec(name)?.subnets.length ?? 0) > 0);
  const six = view.network6 !== '' && routed.some((name) => spec(name)?.ipv6);
  return { vip: vip && routed.length > 0, network, six };
}

function addressesOf(view: DnsView, asker: Asker, endpoint: Endpoint): readonly Found[] {
  const way = wayTo(view, asker, endpoint);
  if (!way?.vip) return tasksOf(view, asker, endpoint);
  return [{ address: endpoint.vip, address6: way.six ? embed6(view.network6, endpoint.vip) : '' }];
}

/** Of its tasks that are healthy and not stopping. */
function tasksOf(view: DnsView, asker: Asker, endpoint: Endpoint): readonly Found[] {
  const way = wayTo(view, asker, endpoint);
  if (!way) return [];
  return endpoint.backends
    .filter((backend) => backend.serving && backend.address !== '')
    .map((backend) => {
      const further = backend.addresses.find((item) => item.network === way.network)?.address;
      const address6 = way.six ? embed6(view.network6, backend.address) : '';
      return { address: further || backend.address, address6 };
    });
}

function seated(view: DnsView, asker: Asker, services: readonly Endpoint[], seat: string): Resolved {
  const inSeat = services.map((endpoint) => ({
    ...endpoint,
    backends: endpoint.backends.filter((backend) => seatOf(backend) === seat),
  }));
  if (inSeat.some(({ backends }) => backends.length > 0)) {
    return unique(inSeat.flatMap((endpoint) => tasksOf(view, asker, endpoint)));
  }
  // No name of the world ends in a number; what is said of a slot is about us.
  return services.length > 0 && /^\d+$/.test(seat) ? 'missing' : undefined;
}

function seatOf(backend: Backend): string {
  return backend.slot > 0 ? String(backend.slot) : backend.nodeName.toLowerCase();
}

function unique(found: readonly Found[]): readonly Found[] {
  const byAddress = new Map(found.map((item) => [item.address, item]));
  return [...byAddress.values()].sort((a, b) => (a.address < b.address ? -1 : 1));
}

function recordsOf(found: readonly Found[], type: string): DnsRecord[] {
  const records: DnsRecord[] = [];
  if (type === 'A' || type === 'ANY') for (const { address } of found) records.push({ type: 'A', address });
  if (type !== 'AAAA' && type !== 'ANY') return records;
  for (const { address6 } of found) if (address6 !== '') records.push({ type: 'AAAA', address: address6 });
  return records;
}

function rotated<T>(items: readonly T[], turn: number): readonly T[] {
  const shift = items.length > 0 ? turn % items.length : 0;
  return [...items.slice(shift), ...items.slice(0, shift)];
}
