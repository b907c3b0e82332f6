/** Records with every field valid, for tests of stores. */
import { newId, systemRandom } from '#proto/kernel/random.ts';
import { nodeId, serviceId, taskId } from '#proto/model/ids.ts';
import {
  containerSpec,
  defaults,
  idleRollout,
  rollbackLike,
  type Service,
  taskTemplate,
} from '#proto/model/service.ts';
import type { Task } from '#proto/model/task.ts';

export function aTask(fields: Partial<Task> = {}): Task {
  return {
    id: taskId(newId(systemRandom)),
    serviceId: serviceId(newId(systemRandom)),
    project: 'shop',
    serviceName: 'web',
    slot: 1,
    nodeId: nodeId(newId(systemRandom)),
    nodeName: 'h1',
    revision: 1,
    wanted: 'running',
    state: 'assigned',
    message: '',
    error: '',
    why: 'fewest tasks of its service',
    addresses: [],
    address: '10.192.1.2',
    createdAtMs: 1_000,
    stateAtMs: 1_000,
    startedAtMs: 0,
    finishedAtMs: 0,
    exitCode: 0,
    oomKilled: false,
    health: '',
    pid: 0,
    startAfterMs: 0,
    imageDigest: `sha256:${'a'.repeat(64)}`,
    hostPorts: [],
    iteration: 0,
    reservations: { cpuMillis: 100, memoryBytes: 1_000_000, pids: 0, generic: [] },
    generic: [],
    successorOf: '',
    isolatedUntilMs: 0,
    isolationRefused: false,
    ...fields,
  };
}

/** As it comes back from a store: without the fields that are undefined. */
export function aService(fields: Partial<Service> = {}): Service {
  const service: Service = {
    id: serviceId(newId(systemRandom)),
    spec: {
      project: 'shop',
      name: 'web',
      labels: {},
      mode: 'replicated',
      replicas: 2,
      template: taskTemplate(containerSpec('busybox')),
      ports: [],
      restart: defaults.restart,
      update: defaults.update,
      rollback: rollbackLike(defaults.update),
      placement: defaults.placement,
      endpointMode: 'vip',
      aliases: [],
      allowFrom: undefined,
      sticky: '',
      dependsOn: [],
      volumeLoss: 'wait',
      protected: false,
      rebalance: '',
      isolation: defaults.isolation,
      preStartOf: '',
      priority: 0,
      maxConcurrent: 0,
      schedule: undefined,
      autoscale: undefined,
    },
    version: 1,
    revision: 1,
    vip: '',
    createdAtMs: 1_000,
    updatedAtMs: 1_000,
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
  return JSON.parse(JSON.stringify(service)) as Service;
}
