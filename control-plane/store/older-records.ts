/** What records that an older version wrote mean by the fields they do not have yet. */
import {
  type ClusterConfig,
  defaultAgentAwayLimitMs,
  defaultFlapDampingMs,
  defaultOrphanAfterMs,
  neverRestored,
  rebalanceDefaults,
} from '#proto/model/cluster.ts';
import { noControls } from '#proto/model/controls.ts';
import type { Node } from '#proto/model/node.ts';
import type { Resources } from '#proto/model/resources.ts';
import {
  type ContainerSpec,
  defaults,
  idleRollout,
  type Mount,
  newerContainer,
  type Revision,
  rollbackLike,
  type Service,
  type ServiceSpec,
  type TaskTemplate,
  type UpdatePolicy,
  type Version,
} from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';
import type { Trashed } from '#proto/model/trash.ts';
import type { Table, Tables } from './records.ts';

/** To add a field that records of today may lack, add it to its table here. */
const task = {
  addresses: [],
  iteration: 0,
  generic: [],
  successorOf: '',
  isolatedUntilMs: 0,
  isolationRefused: false,
  adoptedAtMs: 0,
  duplicate: false,
  singleton: false,
  returnedAtMs: 0,
} satisfies Partial<Task>;
const container = { drainMs: defaults.drainMs, links: [], ...newerContainer } satisfies Partial<
  TaskTemplate['container']
>;
const mount = { tmpfsOptions: [] } satisfies Partial<Mount>;
/** On no network: until it is applied again, which puts it on its project's, nobody may call it by one. */
const template = {
  networks: [],
  networkMode: '',
  bandwidth: defaults.bandwidth,
  documents: [],
  controls: noControls,
} satisfies Partial<TaskTemplate>;
const spec = {
  sticky: '',
  dependsOn: [],
  maxConcurrent: 0,
  protected: false,
  rebalance: '',
  priority: 0,
  isolation: defaults.isolation,
  preStartOf: '',
  failover: 'prompt',
} satisfies Partial<ServiceSpec>;
const placement = { strategy: '', affinities: [] } satisfies Partial<ServiceSpec['placement']>;
const resources = { generic: [] } satisfies Partial<Resources>;
const update = { gates: [] } satisfies Partial<UpdatePolicy>;
/** No history has been written down: the present spec is the version of its tasks' number. */
const service = { previousVersion: 0, rolledBackFrom: 0 } satisfies Partial<Service>;
const node = {
  pinnedSubnet: '',
  link: '',
  address6: '',
  foreignNetworks: [],
  wireguardKey: '',
  away: '',
  fenced: false,
  unaccounted: false,
} satisfies Partial<Node>;
const cluster = {
  network6: '',
  encapsulation: 'auto',
  encryption: '',
  strategy: 'spread',
  trashMs: 24 * 3_600_000,
  orphanAfterMs: defaultOrphanAfterMs,
  flapDampingMs: defaultFlapDampingMs,
  agentAwayLimitMs: defaultAgentAwayLimitMs,
  ...rebalanceDefaults,
  ...neverRestored,
} satisfies Partial<ClusterConfig>;

/** The record with every field that this version knows. */
export function completed(table: Table, value: Tables[Table]): Tables[Table] {
  switch (table) {
    case 'task':
      return filled(task, part(value as Task, 'reservations', resources));
    case 'service':
      return completedService(value as Service);
    case 'revision':
      return completedRevision(value as Revision);
    case 'version':
      return completedVersion(value as Version);
    case 'node':
      return filled(node, part(value as Node, 'capacity', resources));
    case 'cluster':
      return filled(cluster, value as ClusterConfig);
    case 'trash':
      return completedTrash(value as Trashed);
    default:
      return value;
  }
}

function completedService(value: Service): Service {
  const now = completedSpec(value.spec);
  const previous = value.previous && completedSpec(value.previous);
  const rollout = filled(idleRollout, value.rollout);
  const isWhole = now === value.spec && previous === value.previous && rollout === value.rollout;
  const whole = isWhole ? value : { ...value, spec: now, previous, rollout };
  return filled({ ...service, version: value.revision }, whole);
}

function completedVersion(version: Version): Version {
  const now = completedSpec(version.spec);
  return now === version.spec ? version : { ...version, spec: now };
}

function completedTrash(trashed: Trashed): Trashed {
  const { item } = trashed;
  if (item.kind !== 'service') return trashed;
  const spec = completedSpec(item.spec);
  const previous = item.previous && completedSpec(item.previous);
  return spec === item.spec && previous === item.previous ? trashed : { ...trashed, item: { ...item, spec, previous } };
}

function completedRevision(revision: Revision): Revision {
  const now = completedTemplate(revision.template);
  return filled({ origin: revision.number }, now === revision.template ? revision : { ...revision, template: now });
}

function completedSpec(value: ServiceSpec): ServiceSpec {
  const now = completedTemplate(value.template);
  const parts = part(now === value.template ? value : { ...value, template: now }, 'placement', placement);
  const whole = filled(spec, part(parts, 'update', update));
  return 'rollback' in (whole as object) ? whole : { ...whole, rollback: rollbackLike(whole.update) };
}

function completedTemplate(value: TaskTemplate): TaskTemplate {
  const amounts = part(part(value, 'limits', resources), 'reservations', resources);
  return filled(template, withMounts(part(amounts, 'container', container)));
}

function withMounts(value: TaskTemplate): TaskTemplate {
  const { mounts } = value.container;
  const now = mounts.map((one) => filled(mount, one));
  if (now.every((one, index) => one === mounts[index])) return value;
  return { ...value, container: { ...value.container, mounts: now } satisfies ContainerSpec };
}

/** The value with what its part lacks. */
function part<T extends object, K extends keyof T>(value: T, key: K, absent: Partial<T[K] & object>): T {
  const before = value[key] as T[K] & object;
  const now = filled(absent, before);
  return now === before ? value : { ...value, [key]: now };
}

/** The value itself where it lacks nothing: that is the rule. */
function filled<T extends object>(absent: Partial<T>, value: T): T {
  for (const key of Object.keys(absent)) if (!(key in value)) return { ...absent, ...value };
  return value;
}
