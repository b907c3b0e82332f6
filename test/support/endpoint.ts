/** Endpoints and backends with valid defaults, for tests of the network. */
import type { Backend, Endpoint } from '#proto/model/assignment.ts';
import { nodeId, serviceId, taskId } from '#proto/model/ids.ts';

export function backend(address: string, over: Partial<Backend> = {}): Backend {
  return {
    taskId: taskId(`task-${address}`),
    slot: 1,
    address,
    nodeId: nodeId('n1'),
    nodeName: 'h1',
    serving: true,
    ...over,
  };
}

export function endpoint(name: string, over: Partial<Endpoint> = {}): Endpoint {
  return {
    serviceId: serviceId(`service-${name}`),
    project: 'shop',
    name,
    aliases: [],
    mode: 'vip',
    vip: '10.224.0.2',
    ports: [],
    backends: [],
    ...over,
  };
}
