/** What a name means to the task that asks: a pure function of one revision. */
import { containsAddress } from '#net/plan/cidr.ts';
import type { Backend, Endpoint } from '#proto/model/assignment.ts';

/** Seconds an answer may be kept: names follow tasks within that. */
export const ttlSeconds = 1;

export interface DnsQuestion {
  readonly name: string;
  /** A, AAAA, PTR … as dns-packet spells them. */
  readonly type: string;
}

export type DnsRecord =
  | { readonly type: 'A'; readonly name: string; readonly address: string }
  | { readonly type: 'PTR'; readonly name: string; readonly target: string };

/** `forward`: the name is not ours, ask upstream. */
export type DnsAnswer =
  | { readonly kind: 'forward' }
  | { readonly kind: 'unknown' }
  | { readonly kind: 'records'; readonly records: readonly DnsRecord[] };

/** One revision, indexed for questions. */
export interface DnsView {
  readonly domain: string;
  readonly network: string;
  readonly vipNetwork: string;
  /** `project/name`, aliases included → the services called so there. */
  readonly services: ReadonlyMap<string, readonly Endpoint[]>;
  /** name → the projects that have it. */
  readonly projects: ReadonlyMap<string, readonly string[]>;
  /** Task address → its project. */
  readonly projectOf: ReadonlyMap<string, string>;
  /** Task address or VIP → its full name. */
  readonly nameOf: ReadonlyMap<string, string>;
}

export function dnsView(wanted: {
  readonly domain: string;
  readonly network: string;
  readonly vipNetwork: string;
  readonly endpoints: readonly Endpoint[];
}): DnsView {
  const services = new Map<string, Endpoint[]>();
  const projects = new Map<string, string[]>();
  const projectOf = new Map<string, string>();
  const nameOf = new Map<string, string>();
  for (const endpoint of wanted.endpoints) {
    for (const name of new Set([endpoint.name, ...endpoint.aliases].map((text) => text.toLowerCase()))) {
      append(services, `${endpoint.project}/${name}`, endpoint);
      append(projects, name, endpoint.project);
    }
    const full = `${endpoint.name}.${endpoint.project}.${wanted.domain}`;
    if (endpoint.vip !== '') nameOf.set(endpoint.vip, full);
    for (const backend of endpoint.backends) {
      projectOf.set(backend.address, endpoint.project);
      nameOf.set(backend.address, `${backend.slot > 0 ? backend.slot : backend.nodeName}.${full}`);
    }
  }
  const { domain, network, vipNetwork } = wanted;
  return { domain: domain.toLowerCase(), network, vipNetwork, services, projects, projectOf, nameOf };
}

/**
 * The answer to `question` of the task at `source` (any other address: of no project). `turn` rotates the addresses, so
 * that clients that take the first one spread.
 */
export function answer(view: DnsView, question: DnsQuestion, source: string, turn: number): DnsAnswer {
  const name = question.name.toLowerCase().replace(/\.$/, '');
  if (name.endsWith('.in-addr.arpa')) return answerReverse(view, question, name);
  const ours = name === view.domain || name.endsWith(`.${view.domain}`);
  const labels = (ours ? name.slice(0, -view.domain.length - 1) : name).split('.').filter((label) => label !== '');
  const found = resolve(view, labels, view.projectOf.get(source));
  if (!found) return ours && labels.length > 0 ? { kind: 'unknown' } : ours ? none : { kind: 'forward' };
  if (question.type !== 'A' && question.type !== 'ANY') return none;
  const shift = found.length > 0 ? turn % found.length : 0;
  const addresses = [...found.slice(shift), ...found.slice(0, shift)];
  return { kind: 'records', records: addresses.map((address) => ({ type: 'A', name: question.name, address })) };
}

/** The name is there, without a record of that type. */
const none: DnsAnswer = { kind: 'records', records: [] };

function answerReverse(view: DnsView, question: DnsQuestion, name: string): DnsAnswer {
  const address = name.slice(0, -'.in-addr.arpa'.length).split('.').reverse().join('.');
  const target = view.nameOf.get(address);
  if (target && question.type === 'PTR')
    return { kind: 'records', records: [{ type: 'PTR', name: question.name, target }] };
  if (target) return none;
  const ours = containsAddress(view.network, address) || containsAddress(view.vipNetwork, address);
  return ours ? { kind: 'unknown' } : { kind: 'forward' };
}

/** The addresses of a name: within the asker's project, else with its last label as the project, else where only one has it. */
function resolve(view: DnsView, labels: readonly string[], project: string | undefined): readonly string[] | undefined {
  const own = project === undefined ? undefined : resolveIn(view, labels, project);
  if (own) return own;
  const named = labels.length > 1 ? resolveIn(view, labels.slice(0, -1), labels.at(-1) as string) : undefined;
  if (named) return named;
  const name = labels.length === 1 ? labels[0] : undefined;
  const projects = name === undefined ? [] : [...new Set(view.projects.get(name) ?? [])];
  return projects.length === 1 ? resolveIn(view, labels, projects[0] as string) : undefined;
}

/** `NAME`, `tasks.NAME`, `N.NAME` or `NAME.N` (N: a slot, or a node's name where there is a task per node). */
function resolveIn(view: DnsView, labels: readonly string[], project: string): readonly string[] | undefined {
  const [first = '', second] = labels;
  const called = (name: string) => view.services.get(`${project}/${name}`);
  if (labels.length === 1) return unique(called(first)?.flatMap(addressesOf));
  if (labels.length !== 2 || second === undefined) return undefined;
  if (first === 'tasks') return unique(called(second)?.flatMap(({ backends }) => servingOf(backends)));
  return taskOf(called(second), first) ?? taskOf(called(first), second);
}

function addressesOf(endpoint: Endpoint): readonly string[] {
  return endpoint.mode === 'vip' && endpoint.vip !== '' ? [endpoint.vip] : servingOf(endpoint.backends);
}

function servingOf(backends: readonly Backend[]): string[] {
  return backends.filter((backend) => backend.serving && backend.address !== '').map((backend) => backend.address);
}

/** A task is found by its own name whether it serves or not, as soon as it has an address; the serving one where two share a slot. */
function taskOf(services: readonly Endpoint[] | undefined, seat: string): readonly string[] | undefined {
  const tasks = (services ?? [])
    .flatMap((endpoint) => endpoint.backends)
    .filter((backend) => (backend.slot > 0 ? String(backend.slot) : backend.nodeName.toLowerCase()) === seat)
    .filter((backend) => backend.address !== '');
  const serving = servingOf(tasks);
  return tasks.length === 0 ? undefined : serving.length > 0 ? serving : tasks.map((task) => task.address);
}

function unique(addresses: readonly string[] | undefined): readonly string[] | undefined {
  return addresses && [...new Set(addresses)].sort();
}

function append<T>(map: Map<string, T[]>, key: string, value: T): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}
