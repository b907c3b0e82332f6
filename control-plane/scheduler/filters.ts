/** The rules that a node must keep to take a task; each says in words why it refuses. */
import { type NodeId, qualifiedName, type ServiceId } from '#proto/model/ids.ts';
import { leaseComponent, type Node } from '#proto/model/node.ts';
import type { Resources } from '#proto/model/resources.ts';
import type { Port, ServiceSpec, TaskTemplate } from '#proto/model/service.ts';
import { pinnedVolumes, type Volume } from '#proto/model/volume.ts';
import { affinityWords, isUnmet, keptAwayBy, type ParsedAffinity, parseAffinity } from './affinity.ts';
import {
  type Attribute,
  architecture,
  type Constraint,
  parseConstraint,
  parseSpread,
  satisfies,
} from './constraint.ts';
import { askWords, shortOfGeneric } from './generic.ts';
import { type Ledger, portKey, type Usage } from './ledger.ts';

/** What tasks of one service and one revision ask of a node: worked out once for all of them. */
export interface Request {
  readonly serviceId: ServiceId;
  /** `project/name`. */
  readonly name: string;
  readonly reservations: Resources;
  readonly hostPorts: readonly Port[];
  readonly runtime: string;
  readonly constraints: readonly Constraint[];
  readonly spread: readonly Attribute[];
  /** Empty: the cluster's. */
  readonly strategy: '' | 'spread' | 'binpack';
  readonly affinities: readonly ParsedAffinity[];
  readonly platforms: readonly string[];
  readonly maxReplicasPerNode: number;
  /** Named volumes: only where each of them is, or is nowhere yet. */
  readonly volumes: readonly string[];
  /** Only where a lease may be held. */
  readonly singleton: boolean;
  /** A volume whose node is lost may begin anew elsewhere. */
  readonly recreate: boolean;
  /** It takes one of the node's addresses. */
  readonly ownAddress: boolean;
  /** Only this node; for services that run on every node, or beside others. */
  readonly only: NodeId | undefined;
  /** Nodes to take last: tasks of this service kept failing there. */
  readonly shunned: ReadonlySet<NodeId>;
  /** Tasks of the service that stay, by node; undefined: all that are there do. */
  readonly staying: ReadonlyMap<NodeId, number> | undefined;
  /** Tasks of the service that end before these run, by node: nodes are ranked as if they had. */
  readonly leaving: ReadonlyMap<NodeId, number>;
  /** Equal for requests that the same nodes can serve by their records alone. */
  readonly nodeKey: string;
}

const none: ReadonlySet<NodeId> = new Set();
const nobody: ReadonlyMap<NodeId, number> = new Map();

/** Faults: `invalid`, for a constraint or preference that says nothing. */
export function requestOf(
  serviceId: ServiceId,
  spec: ServiceSpec,
  template: TaskTemplate,
  options: Partial<Pick<Request, 'only' | 'shunned' | 'staying' | 'leaving'>> = {},
): Request {
  const { placement } = spec;
  const runtime = template.runtime || 'runc';
  return {
    serviceId,
    name: qualifiedName(spec.project, spec.name),
    reservations: template.reservations,
    hostPorts: hostPortsOf(spec),
    runtime,
    constraints: placement.constraints.map(parseConstraint),
    spread: placement.spread.map(parseSpread),
    strategy: placement.strategy,
    affinities: placement.affinities.map(parseAffinity),
    platforms: placement.platforms,
    maxReplicasPerNode: placement.maxReplicasPerNode,
    only: options.only,
    shunned: options.shunned ?? none,
    staying: options.staying,
    leaving: options.leaving ?? nobody,
    ownAddress: template.networkMode === '',
    volumes: pinnedVolumes(spec.mode, template),
    recreate: spec.volumeLoss === 'recreate',
    singleton: spec.failover === 'singleton',
    nodeKey: JSON.stringify([placement.constraints, placement.platforms, runtime, spec.failover]),
  };
}

/** The ports that its tasks take on their hosts. */
export function hostPortsOf(spec: ServiceSpec): readonly Port[] {
  return spec.ports.filter((port) => port.mode === 'host' && port.published > 0);
}

export interface Filter {
  /** The column of the table of `gantry why`. */
  readonly rule: string;
  fits(request: Request, usage: Usage, ledger: Ledger): boolean;
  /** Why this node is refused; called only where it does not fit. */
  refusal(request: Request, usage: Usage, ledger: Ledger): string;
  /** What is wrong with nodes that this rule refuses, without figures that change all the time. */
  gist(request: Request, ledger: Ledger): string;
  /** What it refuses it goes on refusing until somebody acts: no use waiting for seconds. */
  readonly lasting: boolean;
}

/** A rule about what nodes have given away; most requests are concerned by a few of them. */
export interface UsageFilter extends Filter {
  /** False: it refuses no node, whatever tasks of the request are placed. */
  concerns(request: Request, ledger: Ledger): boolean;
}

const ready: Filter = {
  rule: 'ready',
  fits: ({ singleton }, { node }) =>
    node.state === 'ready' &&
    !node.unaccounted &&
    node.away === '' &&
    node.availability === 'active' &&
    (!singleton || mayHoldLease(node)),
  refusal: (_, { node }) => {
    if (node.state !== 'ready') return `is ${node.state}`;
    if (node.unaccounted) return 'is back, and has not said yet what runs there';
    if (node.availability !== 'active') return node.availability === 'drain' ? 'is drained' : 'takes no new tasks';
    if (node.away !== '') return `is left alone: ${node.away}`;
    return node.fenced
      ? 'has lost its lease, and not said since what runs on it'
      : 'has an agent that keeps no lease: upgrade it';
  },
  gist: () => 'not ready for tasks',
  lasting: false,
};

/** Singletons run there under a lease (node-agent/watchdog). */
function mayHoldLease({ fenced, components }: Node): boolean {
  return !fenced && leaseComponent in components;
}

const platform: Filter = {
  rule: 'platform',
  fits: ({ platforms }, { node }) => platforms.length === 0 || platforms.some((wanted) => runsOn(wanted, node)),
  refusal: ({ platforms }, { node }) =>
    `is ${node.platform.os}/${node.platform.architecture}, not ${platforms.join(' or ')}`,
  gist: ({ platforms }) => `not ${platforms.join(' or ')}`,
  lasting: true,
};

const runtime: Filter = {
  rule: 'runtime',
  fits: ({ runtime }, { node }) =>
    node.runtimes.includes(runtime) || (node.runtimes.length === 0 && runtime === 'runc'),
  refusal: ({ runtime }, { node }) => `has ${node.runtimes.join(', ') || 'no runtime listed'}, not ${runtime}`,
  gist: ({ runtime }) => `without the runtime ${runtime}`,
  lasting: true,
};

const constraints: Filter = {
  rule: 'constraints',
  fits: ({ constraints }, { node }) => constraints.every((constraint) => satisfies(constraint, node)),
  refusal: ({ constraints }, { node }) =>
    `is not ${constraints
      .filter((constraint) => !satisfies(constraint, node))
      .map(({ text }) => text)
      .join(', ')}`,
  gist: ({ constraints }) => `not ${constraints.map(({ text }) => text).join(', ')}`,
  lasting: true,
};

const resources: UsageFilter = {
  rule: 'resources',
  concerns: ({ reservations: { cpuMillis, memoryBytes, pids } }) => cpuMillis > 0 || memoryBytes > 0 || pids > 0,
  fits: ({ reservations }, usage) => shortOf(reservations, usage) === '',
  refusal: ({ reservations }, usage) => shortOf(reservations, usage),
  gist: ({ reservations: { cpuMillis, memoryBytes, pids } }) => {
    const parts = [
      cpuMillis > 0 ? `${cores(cpuMillis)} of CPU` : '',
      memoryBytes > 0 ? `${size(memoryBytes)} of memory` : '',
      pids > 0 ? `${pids} processes` : '',
    ];
    return `without room for ${parts.filter(Boolean).join(' and ')}`;
  },
  lasting: true,
};

const devices: UsageFilter = {
  rule: 'devices',
  concerns: ({ reservations: { generic } }) => generic.length > 0,
  fits: ({ reservations: { generic } }, usage) => shortOfGeneric(generic, usage) === '',
  refusal: ({ reservations: { generic } }, usage) => shortOfGeneric(generic, usage),
  gist: ({ reservations: { generic } }) => `without ${generic.map(askWords).join(' and ')} free`,
  lasting: true,
};

const affinity: UsageFilter = {
  rule: 'affinity',
  concerns: ({ affinities, name }, ledger) =>
    affinities.some(({ preferred }) => !preferred) || ledger.avoidersOf(name).length > 0,
  fits: (request, { node }, ledger) =>
    !request.affinities.some((one) => !one.preferred && isUnmet(one, request.serviceId, node, ledger)) &&
    keptAwayBy(request.name, request.serviceId, node, ledger) === undefined,
  refusal(request, { node }, ledger) {
    const { serviceId, name } = request;
    const unmet = request.affinities.filter((one) => !one.preferred && isUnmet(one, serviceId, node, ledger));
    const avoider = keptAwayBy(name, serviceId, node, ledger);
    return [
      ...unmet.map(({ service, scope, apart }) =>
        apart ? `${service} is on its ${scopeWords(scope)}` : `${service} is not on its ${scopeWords(scope)}`,
      ),
      ...(avoider === undefined ? [] : [`${avoider}, which is near, must be apart from it`]),
    ].join(', ');
  },
  gist(request, ledger) {
    const asked = request.affinities.filter(({ preferred }) => !preferred).map(affinityWords);
    const avoiders = ledger.avoidersOf(request.name).map(({ serviceName }) => `kept apart by ${serviceName}`);
    return asked.length > 0 ? `where it would not be ${asked.join(' and ')}` : [...new Set(avoiders)].join(', ');
  },
  lasting: false,
};

const ports: UsageFilter = {
  rule: 'ports',
  concerns: ({ hostPorts }) => hostPorts.length > 0,
  fits: ({ hostPorts }, usage) => hostPorts.every((port) => !usage.hostPorts.has(portKey(port))),
  refusal: ({ hostPorts }, usage) =>
    `host port ${hostPorts
      .map(portKey)
      .filter((key) => usage.hostPorts.has(key))
      .join(', ')} is taken`,
  gist: ({ hostPorts }) => `with host port ${hostPorts.map(portKey).join(' or ')} taken`,
  lasting: false,
};

const replicas: UsageFilter = {
  rule: 'replicas',
  concerns: ({ maxReplicasPerNode: most }) => most > 0,
  fits: ({ maxReplicasPerNode: most, serviceId }, { node }, ledger) =>
    most === 0 || ledger.serviceOn(serviceId, node.id).occupying < most,
  refusal: ({ maxReplicasPerNode: most, serviceId }, { node }, ledger) =>
    `has ${ledger.serviceOn(serviceId, node.id).occupying} of at most ${most} replicas`,
  gist: ({ maxReplicasPerNode: most }) => `with ${most} replicas, the most allowed`,
  lasting: false,
};

const volumes: UsageFilter = {
  rule: 'volumes',
  concerns: ({ volumes }) => volumes.length > 0,
  fits: (request, { node }, ledger) =>
    request.volumes.every((name) => {
      const home = homeOf(request, name, ledger);
      return !home || home.nodeId === node.id;
    }),
  refusal: (request, { node }, ledger) =>
    request.volumes
      .flatMap((name) => homeOf(request, name, ledger) ?? [])
      .filter(({ nodeId }) => nodeId !== node.id)
      .map(({ name, nodeId, nodeName }) =>
        ledger.usageOf(nodeId)
          ? `volume ${name} is on ${nodeName}`
          : `volume ${name} was on ${nodeName}, which is no longer a member`,
      )
      .join(', '),
  gist: ({ volumes }) => `without volume ${volumes.join(' and ')}`,
  lasting: true,
};

const network: UsageFilter = {
  rule: 'network',
  concerns: ({ ownAddress }) => ownAddress,
  fits: ({ ownAddress }, usage) => !ownAddress || usage.tasks < usage.addresses,
  refusal: (_, { node, addresses }) =>
    node.subnet === ''
      ? node.message
        ? 'has no subnet: gantry nodes says why'
        : 'has no subnet yet'
      : `all ${addresses} addresses of ${node.subnet} are taken`,
  gist: () => 'without an address for it',
  lasting: false,
};

/** By a node's record alone: the same for every task of a request, whatever has been placed. */
export const nodeFilters: readonly Filter[] = [ready, platform, runtime, constraints];
/** By what the node has given away. */
export const usageFilters: readonly UsageFilter[] = [volumes, resources, devices, affinity, ports, replicas, network];
/** Those that may refuse a node to the request. */
export function concerning(request: Request, ledger: Ledger): readonly Filter[] {
  return usageFilters.filter((filter) => filter.concerns(request, ledger));
}
/** Those that may be kept once others have left. */
export const makesRoom: ReadonlySet<Filter> = new Set([resources, devices, ports, network]);
/** All of them, in the order of the table's columns. */
export const filters: readonly Filter[] = [...nodeFilters, ...usageFilters];

/** The node's record allows tasks of this service to stay where they are: what drain and changed labels look at. */
export function mayStay(request: Request, node: Node): string {
  if (node.availability === 'drain') return `node ${node.name} is drained`;
  const unmet = request.constraints.find((constraint) => !satisfies(constraint, node));
  return unmet ? `node ${node.name} is no longer ${unmet.text}` : '';
}

/** True when tasks of the request may run on the node by its record, were it ready and active. */
export function suits(request: Request, usage: Usage, ledger: Ledger): boolean {
  return (
    platform.fits(request, usage, ledger) &&
    runtime.fits(request, usage, ledger) &&
    constraints.fits(request, usage, ledger)
  );
}

/** Where a volume binds the request's tasks to; undefined: nowhere yet, or no longer. */
export function homeOf(request: Request, name: string, ledger: Ledger): Volume | undefined {
  const home = ledger.volume(name);
  if (!home || !request.recreate) return home;
  const usage = ledger.usageOf(home.nodeId);
  return usage && usage.node.state !== 'down' ? home : undefined;
}

function runsOn(wanted: string, node: Node): boolean {
  const [os, arch, variant] = wanted.toLowerCase().split('/');
  return (
    os === node.platform.os.toLowerCase() &&
    (!arch || architecture(arch) === architecture(node.platform.architecture.toLowerCase())) &&
    (!variant || variant === node.platform.variant.toLowerCase())
  );
}

/** What of these amounts the node has not left, in words; empty: it has all. */
export function shortOf(wanted: Resources, usage: Usage): string {
  const { capacity } = usage.node;
  if (wanted.cpuMillis > 0 && usage.cpuMillis + wanted.cpuMillis > capacity.cpuMillis) {
    return `needs ${cores(wanted.cpuMillis)}, ${cores(capacity.cpuMillis - usage.cpuMillis)} of ${cores(capacity.cpuMillis)} free`;
  }
  if (wanted.memoryBytes > 0 && usage.memoryBytes + wanted.memoryBytes > capacity.memoryBytes) {
    return `needs ${size(wanted.memoryBytes)}, ${size(capacity.memoryBytes - usage.memoryBytes)} of ${size(capacity.memoryBytes)} free`;
  }
  if (wanted.pids > 0 && capacity.pids > 0 && usage.pids + wanted.pids > capacity.pids) {
    return `needs ${wanted.pids} processes, ${capacity.pids - usage.pids} of ${capacity.pids} free`;
  }
  return '';
}

function cores(millis: number): string {
  return `${Number((Math.max(0, millis) / 1000).toFixed(2))} cores`;
}

function size(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let value = Math.max(0, bytes);
  let unit = 0;
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${Number(value.toFixed(value < 10 ? 1 : 0))} ${units[unit]}`;
}

function scopeWords(scope: string): string {
  return scope.replace('node.labels.', '');
}
