/** What a task's network mode comes to on this node: whose namespace it has, what it is called, what its files in /etc say. */
import { readFileSync } from 'node:fs';
import { hostname } from 'node:os';
import type { Attachment, Network } from '#net/network.ts';
import { gatewayOf } from '#net/plan/cidr.ts';
import { embed6 } from '#net/plan/cidr6.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { LinkedService } from '#proto/model/assignment.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import type { TaskId } from '#proto/model/ids.ts';
import { type ClusterNetwork, defaultNetworkOf, sharedNetworkOf } from '#proto/model/network.ts';
import type { Node } from '#proto/model/node.ts';
import type { EtcSettings } from '../runtime/etc-files.ts';
import type { ContainerNetwork } from '../runtime/runtime.ts';
import type { TaskWanted } from './decide.ts';
import { filledHostname } from './placeholders.ts';

/** What the node knows of the cluster's network. */
export interface NodePlace {
  /** Gateway and name server of this node's tasks. */
  readonly gateway: string;
  readonly domain: string;
  readonly network6: string;
  /** Names of the networks that have IPv6. */
  readonly ipv6: ReadonlySet<string>;
}

export function placeOf(
  { node, cluster }: { readonly node: Node; readonly cluster: ClusterConfig },
  networks: Iterable<ClusterNetwork>,
): NodePlace {
  const ipv6 = [...networks].flatMap(({ spec }) => (spec.ipv6 ? [spec.name] : []));
  return {
    gateway: node.subnet === '' ? '' : gatewayOf(node.subnet),
    domain: cluster.domain,
    network6: cluster.network6,
    ipv6: new Set(ipv6),
  };
}

/** The running task that another one shares the network of. */
export interface Owner {
  readonly wanted: TaskWanted;
  readonly pid: number;
}

export interface TaskNetworkParts {
  readonly network: Network;
  /** Resolves when the node's network stands, and the remains of no ended task hold the address any more. */
  readonly addressFree: (address: string, by: TaskId, signal: AbortSignal) => Promise<void>;
  /** Resolves when the task runs whose network this one has. Fault `unavailable`: it is not on this node. */
  readonly owner: (asked: Asked) => Promise<Owner>;
  readonly place: () => NodePlace;
  /** The virtual address of a service of that project, as it is known now; '': it has none. */
  readonly vipOf: (project: string, service: string) => string;
}

export interface Asked {
  readonly wanted: TaskWanted;
  readonly signal: AbortSignal;
  readonly say: (message: string) => void;
}

/** Gives the task its network. Faults as `Network.attach`, and of `owner`. */
export async function joinNetwork(parts: TaskNetworkParts, asked: Asked): Promise<ContainerNetwork> {
  const { wanted, signal } = asked;
  const mode = wanted.template.networkMode;
  if (mode === 'host' || mode === 'none') return mode;
  if (mode === '') {
    await parts.addressFree(wanted.task.address, wanted.task.id, signal);
    return { path: (await parts.network.attach(attachmentOf(wanted))).netnsPath };
  }
  const owner = await parts.owner(asked);
  switch (owner.wanted.template.networkMode) {
    case '':
      return { path: (await parts.network.attach(attachmentOf(owner.wanted))).netnsPath };
    case 'host':
      return 'host';
    case 'none':
      return { path: `/proc/${owner.pid}/ns/net` };
    default:
      return joinNetwork(parts, { ...asked, wanted: owner.wanted });
  }
}

/** What its files in /etc are made of; or the task that has them. */
export async function etcOf(parts: TaskNetworkParts, asked: Asked): Promise<EtcSettings | { readonly of: TaskId }> {
  const { wanted } = asked;
  const { task, template } = wanted;
  if (sharedNetworkOf(template.networkMode) !== undefined) {
    const owner = await parts.owner(asked);
    return etcOwner(parts, { ...asked, wanted: owner.wanted });
  }
  const { gateway, domain, network6, ipv6 } = parts.place();
  const own = { hostname: ownHostname(wanted), domainname: template.container.domainname, gateway };
  if (template.networkMode === 'none') return { ...own, network: 'none' };
  if (template.networkMode === 'host') {
    return { ...own, network: 'host', hosts: ofHost('/etc/hosts'), resolvConf: ofHost('/etc/resolv.conf') };
  }
  const has6 = network6 !== '' && template.networks.some(({ network }) => ipv6.has(network));
  const seat = task.slot > 0 ? String(task.slot) : task.nodeName;
  return {
    ...own,
    network: 'cluster',
    fullName: `${seat}.${task.serviceName}.${task.project}.${domain}`,
    addresses: [
      task.address,
      ...task.addresses.map(({ address }) => address),
      ...(has6 ? [embed6(network6, task.address)] : []),
    ],
    nameserver: gateway,
    search: [`${task.project}.${domain}`, domain],
    links: linksOf(parts, wanted).flatMap(({ alias, service, vip }) =>
      vip === '' ? [] : [{ alias, service, address: vip }],
    ),
  };
}

/** The task whose files are had: of a chain of tasks with one network, the first. */
async function etcOwner(parts: TaskNetworkParts, asked: Asked): Promise<{ readonly of: TaskId }> {
  if (sharedNetworkOf(asked.wanted.template.networkMode) === undefined) return { of: asked.wanted.task.id };
  return etcOwner(parts, { ...asked, wanted: (await parts.owner(asked)).wanted });
}

/** `pid: service:NAME`, of the task whose network it has. */
export async function pidNamespaceOf(parts: TaskNetworkParts, asked: Asked): Promise<string | undefined> {
  if (!asked.wanted.template.container.pid.startsWith('service:')) return undefined;
  return `/proc/${(await parts.owner(asked)).pid}/ns/pid`;
}

/** As Docker does: the short id, unless told; on the host's network the host's name; with another's network, that one's. */
export async function hostnameOf(parts: TaskNetworkParts, asked: Asked): Promise<string> {
  if (sharedNetworkOf(asked.wanted.template.networkMode) === undefined) return ownHostname(asked.wanted);
  return hostnameOf(parts, { ...asked, wanted: (await parts.owner(asked)).wanted });
}

function ownHostname({ task, template }: TaskWanted): string {
  const ofHost = template.networkMode === 'host' || template.container.uts === 'host';
  return filledHostname(template.container.hostname, task) || (ofHost ? hostname() : task.id.slice(0, 12));
}

/** The task, as people call it, whose network another has. */
export function nameOfOwner({ task, template }: Pick<TaskWanted, 'task' | 'template'>): string {
  return `task ${sharedNetworkOf(template.networkMode)}.${task.slot || task.nodeName}`;
}

/** The task `owner` is the one whose network the other has: of the service that it names, in the same seat. */
export function sharesNetworkOf(
  { task, template }: Pick<TaskWanted, 'task' | 'template'>,
  owner: TaskWanted['task'],
): boolean {
  return (
    owner.serviceName === sharedNetworkOf(template.networkMode) &&
    owner.project === task.project &&
    owner.slot === task.slot &&
    owner.address === task.address
  );
}

/** It has a namespace of its own on the cluster's network, and so a place there. */
export function hasOwnNetwork({ template }: Pick<TaskWanted, 'template'>): boolean {
  return template.networkMode === '';
}

export function attachmentOf({ task, template }: Pick<TaskWanted, 'task' | 'template'>): Attachment {
  return {
    taskId: task.id,
    address: task.address,
    hostPorts: task.hostPorts,
    serviceId: task.serviceId,
    project: task.project,
    // Of before there were networks: all of a project were on one.
    networks:
      template.networks.length > 0 ? template.networks.map(({ network }) => network) : [defaultNetworkOf(task.project)],
    addresses: task.addresses,
    bandwidth: template.bandwidth,
    links: template.container.links,
    dns: template.container.dns,
  };
}

/** What it links to. A service that was made together with it may have got its address after the task was sent. */
export function linksOf(parts: TaskNetworkParts, { task, links }: TaskWanted): readonly LinkedService[] {
  return links.map((link) => ({ ...link, vip: link.vip || parts.vipOf(task.project, link.service) }));
}

function ofHost(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
    throw new Fault('unavailable', `${path} of this node cannot be read, and the task is to have it`, { cause: error });
  }
}
