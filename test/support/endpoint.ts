/** Endpoints, backends, peers and attachments with valid defaults, for tests of the network. */
import type { Attachment, NetworkWanted } from '#net/network.ts';
import type { Backend, Endpoint, Peer } from '#proto/model/assignment.ts';
import { nodeId, serviceId, type TaskId, taskId } from '#proto/model/ids.ts';
import type { ClusterNetwork, NetworkSpec } from '#proto/model/network.ts';
import { defaults } from '#proto/model/service.ts';

export function backend(address: string, over: Partial<Backend> = {}): Backend {
  return {
    taskId: taskId(`task-${address}`),
    slot: 1,
    address,
    addresses: [],
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
    networks: [],
    allowFrom: undefined,
    sticky: '',
    ipv6: false,
    counted: false,
    holdMs: 0,
    measured: false,
    ports: [],
    backends: [],
    ...over,
  };
}

/** A node of the 10.90.0.0/24 link. */
export function peer(name: string, address: string, subnet: string, over: Partial<Peer> = {}): Peer {
  return {
    nodeId: nodeId(name),
    name,
    address,
    subnet,
    link: `${address}/24`,
    address6: '',
    wireguardKey: '',
    segment: '',
    ...over,
  };
}

export function attachment(id: TaskId, address: string, over: Partial<Attachment> = {}): Attachment {
  return {
    taskId: id,
    address,
    hostPorts: [],
    serviceId: serviceId('none'),
    project: 'shop',
    networks: [],
    addresses: [],
    bandwidth: defaults.bandwidth,
    links: [],
    dns: [],
    ...over,
  };
}

/** A network that services are on. */
export function clusterNetwork(name: string, over: Partial<NetworkSpec> = {}): ClusterNetwork {
  const spec: NetworkSpec = {
    name,
    project: 'shop',
    driver: 'cluster',
    internal: false,
    ipv6: false,
    encrypted: false,
    subnets: [],
    parent: '',
    labels: {},
    ...over,
  };
  return { spec, number: 1, createdAtMs: 0 };
}

export function network(name: string, number: number, over: Partial<NetworkSpec> = {}): ClusterNetwork {
  return { ...clusterNetwork(name, over), number };
}

/** The network of a node with nobody and nothing beside it. */
export function networkWanted(
  own: Pick<NetworkWanted, 'nodeId' | 'address' | 'subnet'>,
  over: Partial<NetworkWanted> = {},
): NetworkWanted {
  return {
    revision: 1,
    network: '10.192.0.0/11',
    vipNetwork: '10.224.0.0/14',
    network6: 'fd47::/96',
    encapsulation: 'auto',
    encryption: '',
    domain: 'gantry.internal',
    link: `${own.address}/24`,
    address6: '',
    segment: '',
    peers: [],
    endpoints: [],
    networks: [],
    attachments: [],
    ...own,
    ...over,
  };
}
