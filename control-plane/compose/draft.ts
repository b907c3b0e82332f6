/** A service while its keys are being read: everything not yet said is absent, and everything said knows where. */
import type { Autoscale } from '#proto/model/autoscale.ts';
import type { Controls } from '#proto/model/controls.ts';
import type { DocumentMount } from '#proto/model/document.ts';
import type { Schedule } from '#proto/model/job.ts';
import type { Bandwidth, NetworkAttachment, NetworkMode } from '#proto/model/network.ts';
import type { Dependency } from '#proto/model/order.ts';
import type { Isolation } from '#proto/model/probe.ts';
import type { GenericResource } from '#proto/model/resources.ts';
import {
  type Affinity,
  type ContainerSpec,
  defaults,
  type Mount,
  type Placement,
  type Port,
  type RestartPolicy,
  type ServiceSpec,
  type UpdatePolicy,
} from '#proto/model/service.ts';
import type { Findings, Place } from './diagnostic.ts';
import type { Pair } from './read.ts';

/** A value and where it was said. */
export interface Said<T> {
  readonly value: T;
  readonly place: Place;
}

/** What `update_config` or `rollback_config` says. */
export type SaidPolicy = { -readonly [Key in keyof UpdatePolicy]?: UpdatePolicy[Key] | undefined };

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

export interface EnvFile {
  readonly path: string;
  readonly required: boolean;
  readonly format: '' | 'raw';
  readonly place: Place;
}

export function envFile(path: string, place: Place, required = true): EnvFile {
  return { path, required, format: '', place };
}

/** A schedule and where its parts are. */
export interface SaidSchedule {
  readonly value: Schedule;
  readonly place: Place;
  readonly cron: Place;
  readonly timezone: Place;
}

export interface VolumesFrom {
  readonly service: string;
  readonly readOnly: boolean;
}

export interface Draft {
  readonly findings: Findings;
  readonly name: string;
  readonly place: Place;
  readonly container: Mutable<Partial<ContainerSpec>>;
  image?: Said<string>;
  /** Where `build` is. */
  build?: Place;
  readonly environment: Pair[];
  readonly envFiles: EnvFile[];
  readonly ports: Said<Port>[];
  readonly mounts: Said<Mount>[];
  /** `configs` and `secrets`; their versions are not known yet. */
  readonly documents: Said<DocumentMount>[];
  mode?: Said<ServiceSpec['mode']>;
  replicas?: Said<number>;
  labels: Record<string, string>;
  readonly limits: { cpuMillis?: Said<number>; memoryBytes?: Said<number>; pids?: Said<number> };
  readonly reservations: { cpuMillis?: Said<number>; memoryBytes?: Said<number> };
  restart?: RestartPolicy;
  restartPolicy?: RestartPolicy;
  readonly update: SaidPolicy;
  readonly rollback: SaidPolicy;
  readonly placement: Mutable<Placement>;
  readonly constraints: Said<string>[];
  /** Services as they are written. */
  readonly affinities: Said<Affinity>[];
  /** Asked of nodes, one for each kind. */
  readonly generic: Said<GenericResource>[];
  endpointMode?: 'vip' | 'dnsrr';
  runtime?: string;
  rebalance?: '' | 'off';
  priority?: number;
  isolation?: Said<Isolation>;
  /** The service whose `pre_start` it is a step of. */
  preStartOf?: string;
  volumeLoss?: Said<'wait' | 'recreate'>;
  failover?: 'prompt' | 'singleton';
  autoscale?: Said<Autoscale>;
  /** `networks:` is there, and where. */
  networks?: Said<true>;
  readonly attachments: Said<NetworkAttachment>[];
  networkMode?: Said<NetworkMode>;
  /** The services of `links`. */
  readonly links: Said<string>[];
  allowFrom?: readonly Said<string>[];
  sticky?: 'client' | '';
  protected?: boolean;
  bandwidth?: Said<Bandwidth>;
  readonly dependsOn: Said<Dependency>[];
  /** Where `x-drain` is. */
  drain?: Place;
  /** Where each key of the service is. */
  readonly keys: Map<string, Place>;
  readonly controls: Mutable<Partial<Controls>>;
  /** Microseconds. */
  cpuQuota?: Said<number>;
  readonly labelFiles: Said<string>[];
  seccompFile?: Said<string>;
  readonly volumesFrom: Said<VolumesFrom>[];
  /** Where `pull_policy: refresh` is. */
  pullRefresh?: Place;
  /** Milliseconds. */
  pullRefreshAfter?: Said<number>;
  schedule?: SaidSchedule;
  maxConcurrent?: Said<number>;
  /** Where it says that whatever ends is begun again. */
  restartsAlways?: Place;
  /** Where `update_config` is. */
  updateConfig?: Place;
}

export function emptyDraft(findings: Findings, name: string, place: Place): Draft {
  return {
    findings,
    name,
    place,
    container: {},
    environment: [],
    envFiles: [],
    ports: [],
    mounts: [],
    documents: [],
    attachments: [],
    links: [],
    dependsOn: [],
    labels: {},
    limits: {},
    reservations: {},
    update: {},
    rollback: {},
    placement: { ...defaults.placement },
    constraints: [],
    affinities: [],
    generic: [],
    keys: new Map(),
    controls: {},
    labelFiles: [],
    volumesFrom: [],
  };
}
