/** Valid nouns with defaults, so that a test names only what it is about. */

import { type Autoscale, autoscaleDefaults } from '#proto/model/autoscale.ts';
import { type ClusterConfig, neverRestored, rebalanceDefaults } from '#proto/model/cluster.ts';
import { Concealed } from '#proto/model/concealed.ts';
import type { Document, DocumentMount, DocumentType } from '#proto/model/document.ts';
import { nodeId, type ServiceId, serviceId, taskId } from '#proto/model/ids.ts';
import type { ClusterNetwork, NetworkSpec } from '#proto/model/network.ts';
import type { Node } from '#proto/model/node.ts';
import { noResources } from '#proto/model/resources.ts';
import {
  containerSpec,
  defaults,
  idleRollout,
  type Revision,
  rollbackLike,
  type Service,
  type ServiceSpec,
  type TaskTemplate,
  taskTemplate,
} from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import { testSeal } from './test-seal.ts';

/** An id of the right form that shows what it was made for: `idOf('web1')`. */
export function idOf(text: string): string {
  return text
    .toLowerCase()
    .replace(/[^a-z0-9]/g, '')
    .padEnd(25, '0')
    .slice(0, 25);
}

/** A ready node called `name` with 4 cores, 8 GiB and the subnet 10.192.N.0/24, where N is the number in its name. */
export function aNode(name: string, fields: Partial<Node> = {}): Node {
  const number = Number(/\d+/.exec(name)?.[0] ?? 0);
  return {
    id: nodeId(idOf(name)),
    name,
    labels: {},
    availability: 'active',
    state: 'ready',
    message: '',
    platform: { os: 'linux', architecture: 'amd64', variant: '' },
    capacity: { cpuMillis: 4_000, memoryBytes: 8 * 2 ** 30, pids: 0, generic: [] },
    address: `10.90.${number >> 8}.${number & 255}`,
    subnet: `10.${192 + (number >> 8)}.${number & 255}.0/24`,
    pinnedSubnet: '',
    link: `10.90.${number >> 8}.${number & 255}/16`,
    address6: '',
    foreignNetworks: [],
    wireguardKey: '',
    bootId: 'boot-1',
    agentVersion: '0.1.0',
    kernel: '6.1.0',
    components: { watchdog: '1', unaddressed: '1' },
    runtimes: ['runc', 'crun'],
    joinedAtMs: 0,
    stateAtMs: 0,
    away: '',
    fenced: false,
    unaccounted: false,
    ...fields,
  };
}

export function aTemplate(fields: Partial<TaskTemplate> = {}): TaskTemplate {
  return taskTemplate(containerSpec('web:1'), { runtime: '', ...fields });
}

/** Autoscaling between 1 and 10 by 70 % of processor time. */
export function anAutoscale(fields: Partial<Autoscale> = {}): Autoscale {
  return {
    ...autoscaleDefaults,
    min: 1,
    max: 10,
    cpuPercent: 70,
    memoryPercent: 0,
    requestsPerSecond: 0,
    schedule: [],
    ...fields,
  };
}

/** A replicated service of 3. */
export function aSpec(name: string, fields: Partial<ServiceSpec> = {}): ServiceSpec {
  return {
    project: 'demo',
    name,
    labels: {},
    mode: 'replicated',
    replicas: 3,
    template: aTemplate(),
    ports: [],
    restart: defaults.restart,
    update: defaults.update,
    rollback: rollbackLike(fields.update ?? defaults.update),
    placement: defaults.placement,
    endpointMode: 'vip',
    aliases: [],
    allowFrom: undefined,
    sticky: '',
    volumeLoss: 'wait',
    failover: 'prompt',
    protected: false,
    rebalance: '',
    isolation: defaults.isolation,
    preStartOf: '',
    priority: 0,
    maxConcurrent: 0,
    schedule: undefined,
    autoscale: undefined,
    dependsOn: [],
    ...fields,
  };
}

export function aService(name: string, spec: Partial<ServiceSpec> = {}, fields: Partial<Service> = {}): Service {
  return {
    id: serviceId(idOf(name)),
    spec: aSpec(name, spec),
    version: 1,
    revision: 1,
    vip: '10.224.0.2',
    createdAtMs: 0,
    updatedAtMs: 0,
    rollout: idleRollout,
    previous: undefined,
    previousVersion: 0,
    previousRevision: 0,
    rolledBackFrom: 0,
    removing: false,
    job: undefined,
    autoscaled: undefined,
    ...fields,
  };
}

export function aRevision(service: Service, number = service.revision, template = service.spec.template): Revision {
  return { serviceId: service.id, number, template, imageDigest: '', createdAtMs: 0, origin: number };
}

/** A running task of slot 1. */
export function aTask(name: string, fields: Partial<Task> = {}): Task {
  return {
    id: taskId(idOf(name)),
    serviceId: serviceId(idOf('web')) as ServiceId,
    project: 'demo',
    serviceName: 'web',
    slot: 1,
    nodeId: '',
    nodeName: '',
    revision: 1,
    wanted: 'running',
    state: 'running',
    message: '',
    error: '',
    why: '',
    address: '',
    addresses: [],
    createdAtMs: 0,
    stateAtMs: 0,
    startedAtMs: 0,
    finishedAtMs: 0,
    exitCode: 0,
    oomKilled: false,
    health: '',
    pid: 0,
    startAfterMs: 0,
    imageDigest: '',
    hostPorts: [],
    reservations: noResources,
    iteration: 0,
    generic: [],
    successorOf: '',
    isolatedUntilMs: 0,
    isolationRefused: false,
    adoptedAtMs: 0,
    duplicate: false,
    singleton: false,
    returnedAtMs: 0,
    ...fields,
  };
}

export function aCluster(fields: Partial<ClusterConfig> = {}): ClusterConfig {
  return {
    id: 'cluster',
    network: '10.192.0.0/11',
    vipNetwork: '10.224.0.0/14',
    network6: 'fd47::/96',
    encapsulation: 'auto',
    encryption: '',
    strategy: 'spread',
    trashMs: 86_400_000,
    ...rebalanceDefaults,
    ...neverRestored,
    orphanAfterMs: 86_400_000,
    flapDampingMs: 10_000,
    agentAwayLimitMs: 30_000,
    natsUrl: '',
    domain: 'gantry.internal',
    ...fields,
  };
}

/** A network of the cluster, whose tasks have further addresses out of these subnets. */
export function aNetwork(
  name: string,
  subnets: readonly string[] = [],
  fields: Partial<NetworkSpec> = {},
): ClusterNetwork {
  const spec: NetworkSpec = {
    name,
    project: 'demo',
    driver: 'cluster',
    internal: false,
    ipv6: false,
    encrypted: false,
    subnets: subnets.map((subnet) => ({ subnet, gateway: '', ipRange: '', reserved: [] })),
    parent: '',
    labels: {},
    ...fields,
  };
  return { spec, number: 1, createdAtMs: 0 };
}

/** A secret `name` made by hand, with this text as its only version, as it lies in the store, and a mount of it. */
export function aSecret(name: string, text?: string) {
  return aDocument('secret', name, text);
}

/** The same of any type. */
export function aDocument<T extends DocumentType>(type: T, name: string, text = `the text of ${name}`) {
  const data = new Concealed(Buffer.from(text));
  const ref = { type, name, version: testSeal.version({ type, name }, data) } as const;
  const document: Document = {
    type: ref.type,
    name,
    project: '',
    labels: {},
    version: ref.version,
    versions: [{ version: ref.version, bytes: data.length, createdAtMs: 0 }],
    createdAtMs: 0,
    updatedAtMs: 0,
  };
  const mount: DocumentMount = { ...ref, target: `/run/${type}s/${name}`, uid: 0, gid: 0, mode: 0o444 };
  return { ref, document, content: testSeal.seal(ref, data), mount, text };
}

/** In a Hello, of a node that is to be told everything. */
export const nothingHeld = Buffer.alloc(0);
