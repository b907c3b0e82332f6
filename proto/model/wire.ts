/** Between the model and the generated messages. Outwards is a cast that the compiler checks; inwards every closed set is narrowed. */
import type * as agent from '../gen/gantry/v1/agent.ts';
import type * as types from '../gen/gantry/v1/types.ts';
import { Fault } from '../kernel/errors.ts';
import type { AssignmentItem, Backend, Endpoint, Peer, TaskAssignment } from './assignment.ts';
import { assignmentKey } from './assignment.ts';
import type { ClusterConfig } from './cluster.ts';
import { Concealed } from './concealed.ts';
import { type Controls, noControls, rateKinds } from './controls.ts';
import { type DocumentMount, type DocumentRef, documentTypes } from './document.ts';
import { nodeId, serviceId, taskId } from './ids.ts';
import type { ClusterNetwork, NetworkMode, NetworkSpec } from './network.ts';
import type { Node } from './node.ts';
import { unhealthyActions } from './probe.ts';
import { noResources } from './resources.ts';
import {
  type ContainerSpec,
  containerSpec,
  defaults,
  type HealthCheck,
  type Mount,
  newerContainer,
  type Port,
  type TaskTemplate,
} from './service.ts';
import { type Task, type TaskStatus, taskStates, wantedStates } from './task.ts';

/** A model type as the generated code writes it: mutable, closed sets and ids as plain strings. */
export type Wire<T> = T extends string
  ? string
  : T extends number | boolean | undefined
    ? T
    : T extends readonly (infer Item)[]
      ? Wire<Item>[]
      : { -readonly [Key in keyof T]: Wire<T[Key]> };

/** The same object, typed for the wire. Encoding only reads it. */
export function toWire<T>(value: T): Wire<T> {
  return value as unknown as Wire<T>;
}

function oneOf<T extends string>(field: string, allowed: readonly T[], value: string): T {
  if ((allowed as readonly string[]).includes(value)) return value as T;
  throw new Fault('invalid', `${field}: "${value}" is none of ${allowed.map((one) => one || '""').join(', ')}`);
}

function required<T>(field: string, value: T | undefined): T {
  if (value === undefined) throw new Fault('invalid', `${field} is missing`);
  return value;
}

function portFromWire(port: types.Port): Port {
  return {
    target: port.target,
    published: port.published,
    protocol: oneOf('port.protocol', ['tcp', 'udp', 'sctp'], port.protocol || 'tcp'),
    mode: oneOf('port.mode', ['ingress', 'host'], port.mode || 'ingress'),
  };
}

function mountFromWire(mount: types.Mount): Mount {
  return { ...mount, type: oneOf('mount.type', ['volume', 'bind', 'tmpfs'], mount.type) };
}

function healthCheckFromWire(check: types.HealthCheck): HealthCheck {
  const { http, onUnhealthy, ...fields } = check;
  return {
    ...fields,
    http: http && { ...http, scheme: oneOf('http.scheme', ['http', 'https'], http.scheme || 'http') },
    onUnhealthy: onUnhealthy === undefined ? undefined : oneOf('on_unhealthy', unhealthyActions, onUnhealthy),
  };
}

function containerFromWire(container: types.ContainerSpec): ContainerSpec {
  return containerSpec(container.image, {
    ...container,
    mounts: container.mounts.map(mountFromWire),
    healthCheck: container.healthCheck && healthCheckFromWire(container.healthCheck),
    pullPolicy: oneOf('pull_policy', ['', 'missing', 'always', 'never'], container.pullPolicy),
    deviceRules: container.deviceRules.map((rule) => ({
      ...rule,
      type: oneOf('device.type', ['a', 'b', 'c'], rule.type),
    })),
    ipc: oneOf('ipc', ['', 'host'], container.ipc),
    pid: container.pid.startsWith('service:')
      ? (container.pid as ContainerSpec['pid'])
      : oneOf('pid', ['', 'host'], container.pid),
    uts: oneOf('uts', ['', 'host'], container.uts),
    cgroup: oneOf('cgroup', ['', 'host'], container.cgroup),
    logging: container.logging
      ? { ...container.logging, driver: oneOf('logging.driver', ['', 'none'], container.logging.driver) }
      : newerContainer.logging,
  });
}

function controlsFromWire(controls: types.Controls | undefined): Controls {
  if (!controls) return noControls;
  const { memorySwappiness, blkioRates, ...rest } = controls;
  return {
    ...rest,
    ...(memorySwappiness !== undefined && { memorySwappiness }),
    blkioRates: blkioRates.map((rate) => ({ ...rate, kind: oneOf('rate.kind', rateKinds, rate.kind) })),
  };
}

export function templateFromWire(template: types.TaskTemplate): TaskTemplate {
  return {
    container: containerFromWire(required('template.container', template.container)),
    limits: template.limits ?? noResources,
    reservations: template.reservations ?? noResources,
    runtime: template.runtime || 'runc',
    networks: template.networks,
    networkMode: networkModeFromWire(template.networkMode),
    bandwidth: template.bandwidth ?? defaults.bandwidth,
    documents: template.documents.map(documentMountFromWire),
    controls: controlsFromWire(template.controls),
  };
}

function documentMountFromWire(mount: types.DocumentMount): DocumentMount {
  const { target, uid, gid, mode } = mount;
  return { ...documentRefFromWire(mount), target, uid, gid, mode };
}

function documentRefFromWire({ type, name, version }: Wire<DocumentRef>): DocumentRef {
  return { type: oneOf('document.type', documentTypes, type), name, version };
}

function networkModeFromWire(mode: string): NetworkMode {
  if (mode.startsWith('service:')) return mode as NetworkMode;
  return oneOf('template.network_mode', ['', 'host', 'none'], mode);
}

/** Field by field: what a newer client says beside them is not kept. */
export function networkSpecFromWire(spec: types.NetworkSpec): NetworkSpec {
  const { name, project, internal, ipv6, encrypted, parent, labels } = spec;
  const driver = oneOf('network.driver', ['cluster', 'macvlan'], spec.driver || 'cluster');
  const subnets = spec.subnets.map(({ subnet, gateway, ipRange, reserved }) => ({
    subnet,
    gateway,
    ipRange,
    reserved,
  }));
  return { name, project, driver, internal, ipv6, encrypted, subnets, parent, labels };
}

function networkFromWire(network: types.ClusterNetwork): ClusterNetwork {
  const spec = networkSpecFromWire(required('network.spec', network.spec));
  return { spec, number: network.number, createdAtMs: network.createdAtMs };
}

const healthStates = ['', 'starting', 'healthy', 'unhealthy'] as const;

export function taskFromWire(task: types.Task): Task {
  return {
    id: taskId(task.id),
    serviceId: serviceId(task.serviceId),
    project: task.project,
    serviceName: task.serviceName,
    slot: task.slot,
    nodeId: task.nodeId === '' ? '' : nodeId(task.nodeId),
    nodeName: task.nodeName,
    revision: task.revision,
    wanted: oneOf('task.wanted', wantedStates, task.wanted),
    state: oneOf('task.state', taskStates, task.state),
    message: task.message,
    error: task.error,
    why: task.why,
    address: task.address,
    addresses: task.addresses,
    createdAtMs: task.createdAtMs,
    stateAtMs: task.stateAtMs,
    startedAtMs: task.startedAtMs,
    finishedAtMs: task.finishedAtMs,
    exitCode: task.exitCode,
    oomKilled: task.oomKilled,
    health: oneOf('task.health', healthStates, task.health),
    pid: task.pid,
    startAfterMs: task.startAfterMs,
    imageDigest: task.imageDigest,
    hostPorts: task.hostPorts.map(portFromWire),
    reservations: task.reservations ?? noResources,
    iteration: task.iteration,
    generic: task.generic,
    successorOf: task.successorOf === '' ? '' : taskId(task.successorOf),
    isolatedUntilMs: task.isolatedUntilMs,
    isolationRefused: task.isolationRefused,
    adoptedAtMs: task.adoptedAtMs,
    duplicate: task.duplicate,
    singleton: task.singleton,
    ...(task.absence && { absence: task.absence }),
    returnedAtMs: task.returnedAtMs,
  };
}

export function taskStatusFromWire(status: agent.TaskStatus): TaskStatus {
  return {
    taskId: taskId(status.taskId),
    state: oneOf('status.state', taskStates, status.state),
    message: status.message,
    error: status.error,
    atMs: status.atMs,
    startedAtMs: status.startedAtMs,
    finishedAtMs: status.finishedAtMs,
    exitCode: status.exitCode,
    oomKilled: status.oomKilled,
    health: oneOf('status.health', healthStates, status.health),
    pid: status.pid,
    imageDigest: status.imageDigest,
  };
}

export function nodeFromWire(node: types.Node): Node {
  return {
    id: nodeId(node.id),
    name: node.name,
    labels: node.labels,
    availability: oneOf('node.availability', ['active', 'drain', 'pause'], node.availability || 'active'),
    state: oneOf('node.state', ['ready', 'down', 'unknown'], node.state || 'unknown'),
    message: node.message,
    platform: node.platform ?? { os: '', architecture: '', variant: '' },
    capacity: node.capacity ?? noResources,
    address: node.address,
    subnet: node.subnet,
    pinnedSubnet: node.pinnedSubnet,
    link: node.link,
    address6: node.address6,
    foreignNetworks: node.foreignNetworks,
    wireguardKey: node.wireguardKey,
    bootId: node.bootId,
    agentVersion: node.agentVersion,
    kernel: node.kernel,
    components: node.components,
    runtimes: node.runtimes,
    joinedAtMs: node.joinedAtMs,
    ...(node.enrolment !== undefined && { enrolment: node.enrolment }),
    ...(node.authority !== undefined && { authority: node.authority }),
    stateAtMs: node.stateAtMs,
    away: node.away,
    fenced: node.fenced,
    unaccounted: node.unaccounted,
    ...(node.restored && { restored: true }),
    ...(node.flapping && { flapping: node.flapping }),
    ...(node.clock && { clock: node.clock }),
  };
}

export function clusterFromWire(cluster: agent.ClusterConfig): ClusterConfig {
  return {
    id: cluster.id,
    network: cluster.network,
    vipNetwork: cluster.vipNetwork,
    network6: cluster.network6,
    encapsulation: oneOf('cluster.encapsulation', ['auto', 'always', 'never'], cluster.encapsulation || 'auto'),
    encryption: oneOf('cluster.encryption', ['', 'wireguard'], cluster.encryption),
    trashMs: cluster.trashMs,
    strategy: oneOf('cluster.strategy', ['spread', 'binpack'], cluster.strategy || 'spread'),
    rebalancePerMinute: cluster.rebalancePerMinute,
    rebalanceAtOnce: cluster.rebalanceAtOnce,
    orphanAfterMs: cluster.orphanAfterMs,
    flapDampingMs: cluster.flapDampingMs,
    agentAwayLimitMs: cluster.agentAwayLimitMs,
    natsUrl: cluster.natsUrl,
    domain: cluster.domain,
    incarnation: cluster.incarnation,
    restoredAtMs: cluster.restoredAtMs,
  };
}

function taskAssignmentFromWire(item: agent.TaskAssignment): TaskAssignment {
  return {
    task: taskFromWire(required('assignment.task', item.task)),
    template: templateFromWire(required('assignment.template', item.template)),
    imageDigest: item.imageDigest,
    links: item.links.map((link) => ({
      ...link,
      ports: link.ports.map(({ number, protocol }) => ({
        number,
        protocol: oneOf('link.protocol', ['tcp', 'udp', 'sctp'], protocol),
      })),
    })),
  };
}

function backendFromWire(backend: agent.Backend): Backend {
  return { ...backend, taskId: taskId(backend.taskId), nodeId: nodeId(backend.nodeId) };
}

function endpointFromWire(endpoint: agent.Endpoint): Endpoint {
  return {
    serviceId: serviceId(endpoint.serviceId),
    project: endpoint.project,
    name: endpoint.name,
    aliases: endpoint.aliases,
    mode: oneOf('endpoint.mode', ['vip', 'dnsrr'], endpoint.mode),
    vip: endpoint.vip,
    networks: endpoint.networks,
    allowFrom: endpoint.allowFrom,
    sticky: oneOf('endpoint.sticky', ['', 'client'], endpoint.sticky),
    ipv6: endpoint.ipv6,
    counted: endpoint.counted,
    holdMs: endpoint.holdMs,
    measured: endpoint.measured,
    ports: endpoint.ports.map(portFromWire),
    backends: endpoint.backends.map(backendFromWire),
  };
}

function peerFromWire(peer: agent.Peer): Peer {
  return { ...peer, nodeId: nodeId(peer.nodeId) };
}

/** Undefined for an item of a kind this version does not know: a newer control plane's, to be left alone. */
export function assignmentFromWire(assignment: agent.Assignment): AssignmentItem | undefined {
  const item = assignment.item;
  switch (item?.$case) {
    case 'task':
      return { kind: 'task', ...taskAssignmentFromWire(item.value) };
    case 'endpoint':
      return { kind: 'endpoint', ...endpointFromWire(item.value) };
    case 'peer':
      return { kind: 'peer', ...peerFromWire(item.value) };
    case 'network':
      return { kind: 'network', ...networkFromWire(item.value) };
    case 'credential': {
      const { registry, username, password } = item.value;
      return { kind: 'credential', registry, username, password };
    }
    case 'content':
      return { kind: 'content', ...documentRefFromWire(item.value), data: new Concealed(item.value.data) };
    default:
      return undefined;
  }
}

export function assignmentToWire(item: AssignmentItem): agent.Assignment {
  const key = assignmentKey(item);
  switch (item.kind) {
    case 'task':
      return { key, item: { $case: 'task', value: toWire<TaskAssignment>(item) } };
    case 'endpoint':
      return { key, item: { $case: 'endpoint', value: toWire<Endpoint>(item) } };
    case 'peer':
      return { key, item: { $case: 'peer', value: toWire<Peer>(item) } };
    case 'network':
      return { key, item: { $case: 'network', value: toWire<ClusterNetwork>(item) } };
    case 'credential':
      return { key, item: { $case: 'credential', value: { ...item } } };
    case 'content': {
      const { type, name, version, data } = item;
      return { key, item: { $case: 'content', value: { type, name, version, data: data.reveal() as Buffer } } };
    }
  }
}
