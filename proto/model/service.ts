/** What the user wants: a service, its template, and the revisions of that template. Field contracts: proto/gantry/v1/types.proto. */

import type { Autoscale, Autoscaled } from './autoscale.ts';
import { type Controls, noControls } from './controls.ts';
import type { DocumentMount } from './document.ts';
import type { Hook } from './hook.ts';
import type { ServiceId } from './ids.ts';
import type { Job, Schedule } from './job.ts';
import type { AllowFrom, Bandwidth, Link, NetworkAttachment, NetworkMode } from './network.ts';
import type { Dependency } from './order.ts';
import type { GrpcProbe, HttpProbe, Isolation, TcpProbe, UnhealthyAction } from './probe.ts';
import { noResources, type Resources } from './resources.ts';

export interface Mount {
  readonly type: 'volume' | 'bind' | 'tmpfs';
  readonly source: string;
  readonly target: string;
  readonly readOnly: boolean;
  readonly noCopy: boolean;
  readonly propagation: string;
  readonly createHostPath: boolean;
  readonly tmpfsSizeBytes: number;
  readonly tmpfsMode: number;
  readonly subpath: string;
  /** Beside size and mode, as mount(8) writes them. */
  readonly tmpfsOptions: readonly string[];
}

export interface Port {
  readonly target: number;
  readonly published: number;
  readonly protocol: 'tcp' | 'udp' | 'sctp';
  readonly mode: 'ingress' | 'host';
}

export interface HealthCheck {
  /** Empty: the image's, unless there is a probe. */
  readonly test: readonly string[];
  /** At most one of these three. */
  readonly http: HttpProbe | undefined;
  readonly tcp: TcpProbe | undefined;
  readonly grpc: GrpcProbe | undefined;
  /** Absent: `replace`. */
  readonly onUnhealthy: UnhealthyAction | undefined;
  /** 0, as with the other times and the retries: the image's, or the default. */
  readonly intervalMs: number;
  readonly timeoutMs: number;
  readonly startPeriodMs: number;
  readonly startIntervalMs: number;
  readonly retries: number;
}

export interface Ulimit {
  readonly name: string;
  readonly soft: number;
  readonly hard: number;
}

/** A device of the node, or a directory of devices, that a container may use. */
export interface Device {
  readonly source: string;
  readonly target: string;
  /** Of r, w and m. */
  readonly permissions: string;
}

/** Devices that a container may use where it makes nodes of them; -1: all numbers. */
export interface DeviceRule {
  readonly type: 'a' | 'b' | 'c';
  readonly major: number;
  readonly minor: number;
  readonly permissions: string;
}

export interface LogSettings {
  /** Empty: kept on the node and shipped. */
  readonly driver: '' | 'none';
  readonly maxSizeBytes: number;
}

export interface ContainerSpec {
  readonly image: string;
  readonly entrypoint: readonly string[];
  readonly command: readonly string[];
  readonly env: readonly string[];
  readonly labels: Readonly<Record<string, string>>;
  readonly hostname: string;
  readonly user: string;
  readonly workingDir: string;
  readonly mounts: readonly Mount[];
  readonly capAdd: readonly string[];
  readonly capDrop: readonly string[];
  readonly readOnly: boolean;
  readonly sysctls: Readonly<Record<string, string>>;
  readonly ulimits: readonly Ulimit[];
  readonly stopSignal: string;
  readonly stopGracePeriodMs: number;
  readonly init: boolean;
  /** How long connections of others may go on between being told to stop and the stop signal. */
  readonly drainMs: number;
  readonly links: readonly Link[];
  readonly extraHosts: Readonly<Record<string, string>>;
  readonly dns: readonly string[];
  readonly dnsSearch: readonly string[];
  readonly dnsOptions: readonly string[];
  readonly healthCheck: HealthCheck | undefined;
  /** Before a task counts as running, and before its stop signal. */
  readonly postStart: readonly Hook[];
  readonly preStop: readonly Hook[];
  readonly tty: boolean;
  readonly stdinOpen: boolean;
  readonly expose: readonly number[];
  readonly privileged: boolean;
  readonly newPrivileges: boolean;
  readonly seccompUnconfined: boolean;
  readonly pullPolicy: '' | 'missing' | 'always' | 'never';
  /** A tag that this node resolved longer ago is resolved anew; 0: never. */
  readonly pullMaxAgeMs: number;
  readonly annotations: Readonly<Record<string, string>>;
  /** Another name of it on its networks; of a service of one task. */
  readonly containerName: string;
  readonly domainname: string;
  readonly groupAdd: readonly string[];
  readonly devices: readonly Device[];
  readonly deviceRules: readonly DeviceRule[];
  readonly ipc: '' | 'host';
  readonly pid: '' | 'host' | `service:${string}`;
  readonly uts: '' | 'host';
  readonly cgroup: '' | 'host';
  readonly shmBytes: number;
  readonly oomScoreAdj: number;
  /** The text of a profile, as Docker writes it. */
  readonly seccompProfile: string;
  readonly apparmorProfile: string;
  readonly systemPathsUnconfined: boolean;
  readonly logging: LogSettings;
}

/** A change in here needs new tasks; a change elsewhere in the spec does not. */
export interface TaskTemplate {
  readonly container: ContainerSpec;
  readonly limits: Resources;
  readonly reservations: Resources;
  readonly runtime: string;
  /** Empty with a network mode other than ''. */
  readonly networks: readonly NetworkAttachment[];
  readonly networkMode: NetworkMode;
  readonly bandwidth: Bandwidth;
  /** Configs and secrets, as files. */
  readonly documents: readonly DocumentMount[];
  readonly controls: Controls;
}

export interface RestartPolicy {
  readonly condition: 'any' | 'on-failure' | 'none';
  readonly delayMs: number;
  readonly maxAttempts: number;
  readonly windowMs: number;
}

/** So many seats go over to a new version, and no more before the gate is passed: `count`, or `percent` of all, rounded up. */
export interface Gate {
  /** A failure before a canary's gate is passed reverts, whatever the policy says of failures. */
  readonly kind: 'canary' | 'pause';
  readonly count: number;
  readonly percent: number;
  /** It is passed when those seats have been well for so long; 0: when somebody resumes the rollout. */
  readonly holdMs: number;
}

export interface UpdatePolicy {
  readonly parallelism: number;
  readonly delayMs: number;
  readonly order: 'stop-first' | 'start-first';
  readonly monitorMs: number;
  readonly failureAction: 'pause' | 'continue' | 'rollback';
  readonly maxFailureRatio: number;
  /** Lowest first. */
  readonly gates: readonly Gate[];
}

export interface Placement {
  readonly constraints: readonly string[];
  readonly spread: readonly string[];
  readonly maxReplicasPerNode: number;
  readonly platforms: readonly string[];
  /** Empty: the cluster's. */
  readonly strategy: '' | 'spread' | 'binpack';
  readonly affinities: readonly Affinity[];
}

/** Near another service, or away from it. */
export interface Affinity {
  /** `project/name`. */
  readonly service: string;
  /** What nodes share: `node`, or an attribute such as `node.labels.zone`. */
  readonly scope: string;
  /** Where no task of it is; else where one is. */
  readonly apart: boolean;
  /** Where there is a choice; else nowhere else. */
  readonly preferred: boolean;
}

export interface ServiceSpec {
  readonly project: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly mode: 'replicated' | 'global' | 'replicated-job' | 'global-job';
  /** Of a job: how many have to complete. */
  readonly replicas: number;
  readonly template: TaskTemplate;
  readonly ports: readonly Port[];
  readonly restart: RestartPolicy;
  readonly update: UpdatePolicy;
  /** How it goes back: by hand, or because an update failed. */
  readonly rollback: UpdatePolicy;
  readonly placement: Placement;
  readonly endpointMode: 'vip' | 'dnsrr';
  /** Names of the service on every network of it, beside its own. */
  readonly aliases: readonly string[];
  /** undefined: whoever shares a network may call it. */
  readonly allowFrom: AllowFrom | undefined;
  /** `client`: connections of one client address go to the same task while it lives (Compose: `x-sticky`). */
  readonly sticky: '' | 'client';
  /** When the node that has its named volumes is lost: wait for it, or begin elsewhere with empty ones. */
  readonly volumeLoss: 'wait' | 'recreate';
  /** When a task's node is lost: another one at once, or only when the first has surely ended (Compose: `x-failover`). */
  readonly failover: 'prompt' | 'singleton';
  /** It is removed only where that is said by name (Compose: `x-protected`). */
  readonly protected: boolean;
  /** 0 to 1000: tasks of lower priority leave where one of it fits nowhere. */
  readonly priority: number;
  /** Its tasks may be moved to even out nodes, unless `off`. */
  readonly rebalance: '' | 'off';
  /** Of a job: tasks at once (Compose: `x-max-concurrent`); 0: all. */
  readonly maxConcurrent: number;
  /** undefined: a job that runs when it is applied or asked for. */
  readonly schedule: Schedule | undefined;
  /** Undefined: `replicas` says how many. */
  readonly autoscale: Autoscale | undefined;
  readonly dependsOn: readonly Dependency[];
  /** Of tasks whose health check says `isolate`. */
  readonly isolation: Isolation;
  /** The service of the project that it is a step before (Compose: `pre_start`); empty: none. */
  readonly preStartOf: string;
}

export interface Rollout {
  readonly state: 'idle' | 'updating' | 'held' | 'paused' | 'completed' | 'rolling-back' | 'rolled-back';
  readonly message: string;
  readonly startedAtMs: number;
  readonly finishedAtMs: number;
  readonly gatesPassed: number;
  /** Held: when it goes on by itself; 0: when somebody resumes it. */
  readonly holdUntilMs: number;
  /** Failures of earlier tasks are forgiven: somebody resumed it after them. */
  readonly failuresSinceMs: number;
  /** Paused: what it goes on with. */
  readonly resumes: '' | 'updating' | 'rolling-back';
  /** The same once more: there is nothing to go back to. */
  readonly restart: boolean;
}

export interface Service {
  readonly id: ServiceId;
  readonly spec: ServiceSpec;
  /** Of the spec: one more with each change of it. */
  readonly version: number;
  /** Of the tasks: the version that last needed new ones. */
  readonly revision: number;
  readonly vip: string;
  readonly createdAtMs: number;
  readonly updatedAtMs: number;
  readonly rollout: Rollout;
  /** What a rollback returns to: the last spec before this one that was rolled out; undefined after a rollback. */
  readonly previous: ServiceSpec | undefined;
  readonly previousVersion: number;
  readonly previousRevision: number;
  /** The version that a rollback left, while nothing else has been asked for; 0 otherwise. */
  readonly rolledBackFrom: number;
  readonly removing: boolean;
  readonly job: Job | undefined;
  /** Undefined: nothing was decided yet, or it is not autoscaled. */
  readonly autoscaled: Autoscaled | undefined;
}

/** One immutable version of a service's template, named by (serviceId, number). */
export interface Revision {
  readonly serviceId: ServiceId;
  readonly number: number;
  readonly template: TaskTemplate;
  readonly imageDigest: string;
  readonly createdAtMs: number;
  /** The revision whose processes go on under this one, with other limits; its own number where it needs new ones. */
  readonly origin: number;
}

/** What a service was asked to be at some time, named by (serviceId, number): `gantry history`, and where a rollback goes. */
export interface Version {
  readonly serviceId: ServiceId;
  readonly number: number;
  readonly spec: ServiceSpec;
  /** Of its tasks. */
  readonly revision: number;
  readonly kind: 'apply' | 'scale' | 'restart' | 'rollback';
  readonly why: string;
  /** The operator who asked; empty where nobody did, or nobody knows. */
  readonly by: string;
  readonly createdAtMs: number;
  /** How its rollout ended; empty while it goes on, and where it needed none. */
  readonly outcome: '' | 'completed' | 'paused' | 'rolled-back';
  /** Why it ended so. */
  readonly message: string;
}

export const idleRollout: Rollout = {
  state: 'idle',
  message: '',
  startedAtMs: 0,
  finishedAtMs: 0,
  gatesPassed: 0,
  holdUntilMs: 0,
  failuresSinceMs: 0,
  resumes: '',
  restart: false,
};

/** What applies where a Compose file is silent: swarmkit's defaults, but an immediate first restart. */
export const defaults = {
  restart: { condition: 'any', delayMs: 0, maxAttempts: 0, windowMs: 0 } satisfies RestartPolicy as RestartPolicy,
  /** Of a job. */
  jobRestart: {
    condition: 'on-failure',
    delayMs: 0,
    maxAttempts: 3,
    windowMs: 0,
  } satisfies RestartPolicy as RestartPolicy,
  schedule: {
    cron: '',
    timezone: '',
    overlap: 'allow',
    catchUp: 'last',
    startingDeadlineMs: 0,
    keepSucceeded: 3,
    keepFailed: 3,
    suspend: false,
  } satisfies Schedule as Schedule,
  update: {
    parallelism: 1,
    delayMs: 0,
    order: 'stop-first',
    monitorMs: 5_000,
    failureAction: 'pause',
    maxFailureRatio: 0,
    gates: [],
  } satisfies UpdatePolicy as UpdatePolicy,
  placement: {
    constraints: [],
    spread: [],
    maxReplicasPerNode: 0,
    platforms: [],
    strategy: '',
    affinities: [],
  } satisfies Placement as Placement,
  stopGracePeriodMs: 10_000,
  drainMs: 2_000,
  isolation: { atMost: 1, forMs: 3_600_000 } satisfies Isolation as Isolation,
  bandwidth: { egressBitsPerSecond: 0, ingressBitsPerSecond: 0 } satisfies Bandwidth as Bandwidth,
  healthCheck: {
    http: undefined,
    tcp: undefined,
    grpc: undefined,
    onUnhealthy: undefined,
    intervalMs: 30_000,
    timeoutMs: 30_000,
    startPeriodMs: 0,
    startIntervalMs: 5_000,
    retries: 3,
  },
} as const;

/** A mount with every further field at its default. */
export function emptyMount(type: Mount['type'], source: string, target: string): Mount {
  return {
    type,
    source,
    target,
    readOnly: false,
    noCopy: false,
    propagation: '',
    createHostPath: type === 'bind',
    tmpfsSizeBytes: 0,
    tmpfsMode: 0,
    subpath: '',
    tmpfsOptions: [],
  };
}

/** Fields that records, journals and peers of before them lack. */
export const newerContainer = {
  postStart: [],
  preStop: [],
  pullMaxAgeMs: 0,
  annotations: {},
  containerName: '',
  domainname: '',
  groupAdd: [],
  devices: [],
  deviceRules: [],
  ipc: '',
  pid: '',
  uts: '',
  cgroup: '',
  shmBytes: 0,
  oomScoreAdj: 0,
  seccompProfile: '',
  apparmorProfile: '',
  systemPathsUnconfined: false,
  logging: { driver: '', maxSizeBytes: 0 },
} as const satisfies Partial<ContainerSpec>;

/** A container of `image` with every field at its default. */
export function containerSpec(image: string, fields: Partial<ContainerSpec> = {}): ContainerSpec {
  return {
    image,
    entrypoint: [],
    command: [],
    env: [],
    labels: {},
    hostname: '',
    user: '',
    workingDir: '',
    mounts: [],
    capAdd: [],
    capDrop: [],
    readOnly: false,
    sysctls: {},
    ulimits: [],
    stopSignal: '',
    stopGracePeriodMs: defaults.stopGracePeriodMs,
    init: false,
    drainMs: defaults.drainMs,
    links: [],
    extraHosts: {},
    dns: [],
    dnsSearch: [],
    dnsOptions: [],
    tty: false,
    stdinOpen: false,
    expose: [],
    healthCheck: undefined,
    privileged: false,
    newPrivileges: false,
    seccompUnconfined: false,
    pullPolicy: '',
    ...newerContainer,
    ...fields,
  };
}

/** A template of `container` with every other field at its default. */
export function taskTemplate(container: ContainerSpec, fields: Partial<TaskTemplate> = {}): TaskTemplate {
  return {
    container,
    limits: noResources,
    reservations: noResources,
    runtime: 'runc',
    networks: [],
    networkMode: '',
    bandwidth: defaults.bandwidth,
    documents: [],
    controls: noControls,
    ...fields,
  };
}

/** How a service goes back where it does not say: as it goes forward, but without delay and gates. */
export function rollbackLike(update: UpdatePolicy): UpdatePolicy {
  const failureAction = update.failureAction === 'rollback' ? 'pause' : update.failureAction;
  return { ...update, delayMs: 0, failureAction, gates: [] };
}
