/** The limits of names, numbers and sizes, checked in one place for every door that takes a spec. */

import { maySleep } from './autoscale.ts';
import { containerProblems } from './container-rules.ts';
import { namePattern, qualifiedName } from './ids.ts';
import { isPerNode } from './job.ts';
import { jobProblems } from './job-rules.ts';
import { type NetworkSpec, sharedNetworkOf } from './network.ts';
import type { ServiceSpec } from './service.ts';

export const limits = {
  replicas: 10_000,
  envBytes: 128 * 1024,
  labelBytes: 64 * 1024,
  commandBytes: 128 * 1024,
  mounts: 64,
  documents: 64,
  publishedPorts: 256,
  constraints: 32,
  affinities: 16,
  priority: 1_000,
  /** Tasks of a service at once. */
  isolated: 1_000,
  stopGracePeriodMs: 24 * 3_600_000,
  drainMs: 3_600_000,
  idleMs: 24 * 3_600_000,
  networksOfService: 32,
  seccompBytes: 256 * 1024,
  /** The kernel and runc refuse less. */
  minMemoryBytes: 4 * 1024 * 1024,
} as const;

/** One thing that is wrong with a spec. `field` is the Compose path below the service: `deploy.replicas`, `ports`. */
export interface SpecProblem {
  readonly field: string;
  readonly message: string;
  readonly remedy: string;
}

const imagePattern =
  /^(?:(?:[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:]+\])(?::\d{1,5})?\/)?[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*(?:\/[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*)*(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-fA-F]{32,})?$/;
const labelPattern = /^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,126}[a-zA-Z0-9])?$/;

/** True for what may name a service, project or node. */
export function isName(text: string): boolean {
  return namePattern.test(text);
}

/** True for `[host[:port]/]path[:tag][@digest]`. */
export function isImageReference(text: string): boolean {
  return text.length <= 512 && imagePattern.test(text);
}

/** True for what may be the key of a node's label. */
export function isLabelKey(text: string): boolean {
  return labelPattern.test(text);
}

/** True for what may name a network; its parts may be longer than other names, for it holds a project's. */
export function isNetworkName(text: string): boolean {
  return /^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$/.test(text);
}

/** True for what DNS may be asked for: labels of letters, digits, - and _. */
export function isHostName(text: string): boolean {
  return (
    text.length <= 253 &&
    /^[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?(\.[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9_])?)*$/.test(text)
  );
}

/** Everything about a network that would never work; its ranges are looked at where arithmetic of addresses is. */
export function networkProblems(spec: NetworkSpec): readonly SpecProblem[] {
  const problems: SpecProblem[] = [];
  const refuse = (field: string, message: string, remedy: string) => {
    problems.push({ field, message, remedy });
  };
  if (!isNetworkName(spec.name))
    refuse('name', `"${spec.name}" cannot name a network`, 'use letters, digits, ., - and _, at most 128 characters');
  if (spec.driver === 'macvlan') {
    if (!/^[^\s/:]{1,15}$/.test(spec.parent))
      refuse(
        'driver_opts.parent',
        spec.parent === ''
          ? 'a macvlan network needs the link of the hosts that it is on'
          : `"${spec.parent}" is not a link`,
        'write parent: eth0 under driver_opts:',
      );
    if (spec.subnets.length === 0)
      refuse(
        'ipam',
        'a macvlan network needs the subnet of the network that the hosts are on',
        'write ipam: { config: [{ subnet: …, gateway: …, ip_range: … }] }, with an ip_range that nobody else gives addresses of',
      );
    if (spec.subnets.length > 1) refuse('ipam', 'a macvlan network has one subnet', 'make a network for each');
    if (spec.ipv6) refuse('enable_ipv6', 'a macvlan network has IPv4 only', 'remove it');
    if (spec.internal && spec.subnets.some(({ gateway }) => gateway !== ''))
      refuse('internal', 'an internal network has no gateway', 'remove the gateway');
  } else if (spec.parent !== '')
    refuse('driver_opts.parent', 'only networks of the driver macvlan have a parent', 'use the driver macvlan');
  return problems;
}

/** Why `spec` cannot have the network of the same slot's task of `owner` (`network_mode: service:NAME`). */
export function sharedNetworkProblem(
  spec: ServiceSpec,
  owner: ServiceSpec,
): { readonly message: string; readonly remedy: string } | undefined {
  const { networkMode } = owner.template;
  if (networkMode !== '')
    return {
      message: `service ${owner.name} has no network of its own, with network_mode: ${networkMode}`,
      remedy: `write network_mode: ${networkMode} here too`,
    };
  if (owner.mode !== spec.mode)
    return {
      message: `service ${owner.name} is ${owner.mode}, this one ${spec.mode}`,
      remedy: 'give both the same deploy.mode',
    };
  if (owner.autoscale) return { message: `service ${owner.name} is autoscaled`, remedy: 'remove x-autoscale there' };
  if (owner.replicas !== spec.replicas)
    return {
      message: `service ${owner.name} has ${owner.replicas} replicas, this one ${spec.replicas}: each of its tasks is in the network of one of the other's`,
      remedy: 'give both as many',
    };
  return undefined;
}

/** What would never work of how the service is autoscaled. */
function autoscaleProblems({ autoscale, mode, endpointMode, template }: ServiceSpec): Omit<SpecProblem, 'field'>[] {
  if (!autoscale) return [];
  const { memoryPercent, requestsPerSecond } = autoscale;
  const ranges = [autoscale, ...autoscale.schedule];
  const problems: Omit<SpecProblem, 'field'>[] = [];
  const refuse = (message: string, remedy: string) => problems.push({ message, remedy });
  if (mode !== 'replicated') refuse(`mode ${mode} has no number of replicas to move`, 'use mode: replicated');
  for (const range of ranges)
    if (range.max < range.min || range.max < 1 || range.max > limits.replicas)
      refuse(`from ${range.min} to ${range.max} is no range`, `let max be at least min, and 1 to ${limits.replicas}`);
  if (memoryPercent > 0 && template.reservations.memoryBytes === 0 && template.limits.memoryBytes === 0)
    refuse('memory is a share of what a task may use, and nothing says how much', 'set a memory limit or reservation');
  if ((requestsPerSecond > 0 || maySleep(autoscale)) && endpointMode === 'dnsrr')
    refuse('requests to endpoint_mode: dnsrr go straight to tasks, and nobody counts them', 'use endpoint_mode: vip');
  if (sharedNetworkOf(template.networkMode) !== undefined)
    refuse('it has the network of another service, slot by slot', 'remove x-autoscale');
  if (ranges.some(({ max }) => max > 1) && template.networks.some(({ ipv4Address }) => ipv4Address !== ''))
    refuse('its fixed address is for one task only', 'remove ipv4_address, or x-autoscale');
  return problems;
}

/** Everything about a spec that would never work, whoever made it; empty: it may be committed. */
export function specProblems(spec: ServiceSpec): readonly SpecProblem[] {
  const problems: SpecProblem[] = [];
  const refuse = (field: string, message: string, remedy: string) => {
    problems.push({ field, message, remedy });
  };
  const { container, limits: limit, reservations } = spec.template;
  if (!isName(spec.project))
    refuse('', `project name "${spec.project}" is not allowed`, 'use a-z, 0-9, - and _, at most 63 characters');
  if (!isName(spec.name))
    refuse('', `service name "${spec.name}" is not allowed`, 'use a-z, 0-9, - and _, at most 63 characters');
  if (!isImageReference(container.image))
    refuse('image', `"${container.image}" is not an image reference`, 'write [registry/]name[:tag][@digest]');
  if (!Number.isInteger(spec.replicas) || spec.replicas < 0 || spec.replicas > limits.replicas)
    refuse('deploy.replicas', `${spec.replicas} replicas are not allowed`, `use 0 to ${limits.replicas}`);
  for (const problem of autoscaleProblems(spec)) problems.push({ ...problem, field: 'x-autoscale' });
  const env = bytesOf(container.env);
  if (env > limits.envBytes)
    refuse('environment', `the environment has ${env} bytes`, `at most ${limits.envBytes} fit`);
  for (const entry of container.env)
    if (entry.includes('\0')) refuse('environment', 'a variable holds a NUL character', 'remove it');
  if (bytesOf(container.command) > limits.commandBytes || bytesOf(container.entrypoint) > limits.commandBytes)
    refuse('command', 'the command is too long', `at most ${limits.commandBytes} bytes fit`);
  for (const [field, labels] of [
    ['labels', container.labels],
    ['annotations', container.annotations],
    ['deploy.labels', spec.labels],
  ] as const)
    if (bytesOf(Object.entries(labels).flat()) > limits.labelBytes)
      refuse(field, 'the labels are too large', `at most ${limits.labelBytes} bytes fit`);
  if (container.mounts.length > limits.mounts)
    refuse('volumes', `${container.mounts.length} mounts are too many`, `at most ${limits.mounts} fit`);
  const { documents } = spec.template;
  if (documents.length > limits.documents)
    refuse(
      'documents',
      `${documents.length} configs and secrets are too many`,
      `at most ${limits.documents} fit: put them into one file`,
    );
  if (spec.ports.length > limits.publishedPorts)
    refuse('ports', `${spec.ports.length} ports are too many`, `at most ${limits.publishedPorts} fit`);
  if (spec.placement.constraints.length > limits.constraints)
    refuse('deploy.placement.constraints', 'there are too many constraints', `at most ${limits.constraints} fit`);
  if (container.stopGracePeriodMs > limits.stopGracePeriodMs)
    refuse('stop_grace_period', 'the grace period is too long', 'at most 24h');
  if (limit.memoryBytes > 0 && limit.memoryBytes < limits.minMemoryBytes)
    refuse(
      'deploy.resources.limits.memory',
      `${limit.memoryBytes} bytes of memory cannot run anything`,
      'use 4M or more',
    );
  if (limit.memoryBytes > 0 && reservations.memoryBytes > limit.memoryBytes)
    refuse('deploy.resources.reservations.memory', 'more memory is reserved than the limit allows', 'lower it');
  if (limit.cpuMillis > 0 && reservations.cpuMillis > limit.cpuMillis)
    refuse('deploy.resources.reservations.cpus', 'more cpu is reserved than the limit allows', 'lower it');
  const targets = new Set<string>();
  for (const mount of container.mounts) {
    if (targets.has(mount.target)) refuse('volumes', `two mounts have the target ${mount.target}`, 'keep one of them');
    targets.add(mount.target);
  }
  if (spec.endpointMode === 'dnsrr' && spec.ports.some((port) => port.published > 0 && port.mode === 'ingress'))
    refuse(
      'deploy.endpoint_mode',
      'dnsrr has no service address that ports could be published on',
      'use mode: host for the ports, or endpoint_mode: vip',
    );
  networkSettingProblems(spec, refuse);
  affinityProblems(spec, refuse);
  if (!(spec.priority >= 0 && spec.priority <= limits.priority))
    refuse('x-priority', `the priority ${spec.priority} is not allowed`, `use 0 to ${limits.priority}`);
  containerProblems(spec, refuse);
  singletonProblems(spec, refuse);
  jobProblems(spec, refuse);
  return problems;
}

type Refuse = (field: string, message: string, remedy: string) => void;

/** A singleton is one task, whose next begins when it has ended, and whose end is the end of all its processes. */
function singletonProblems(spec: ServiceSpec, refuse: Refuse): void {
  if (spec.failover !== 'singleton') return;
  const field = 'x-failover';
  if (spec.mode !== 'replicated')
    refuse(field, `a singleton is one task that goes on, not mode ${spec.mode}`, 'use mode: replicated, or prompt');
  else if (spec.replicas > 1)
    refuse('deploy.replicas', `a singleton has one task, not ${spec.replicas}`, 'use 1, or x-failover: prompt');
  if (spec.autoscale && [spec.autoscale, ...spec.autoscale.schedule].some(({ max }) => max > 1))
    refuse('x-autoscale', 'a singleton has one task at most', 'let max be 1, or use x-failover: prompt');
  const startsFirst = (['update', 'rollback'] as const).find((key) => spec[key].order === 'start-first');
  if (startsFirst)
    refuse(
      `deploy.${startsFirst}_config`,
      'a singleton is never started before the one before has ended',
      'use order: stop-first, or x-failover: prompt',
    );
  const { pid, cgroup, privileged, healthCheck } = spec.template.container;
  if (privileged || cgroup === 'host')
    refuse(
      privileged ? 'privileged' : 'cgroup',
      'its processes could leave the control group by which a singleton is ended',
      'remove it, or use x-failover: prompt',
    );
  if (healthCheck?.onUnhealthy === 'isolate')
    refuse(
      'healthcheck',
      'what is isolated goes on beside its replacement, and a singleton is never twice',
      'use x-on-unhealthy: replace, or x-failover: prompt',
    );
  if (pid !== '')
    refuse('pid', `with pid: ${pid} processes of a singleton may outlive it`, 'remove pid:, or use x-failover: prompt');
}

function affinityProblems(spec: ServiceSpec, refuse: Refuse): void {
  const { affinities } = spec.placement;
  const field = 'deploy.placement.x-affinity';
  if (affinities.length > limits.affinities)
    refuse(field, `${affinities.length} affinities are too many`, `at most ${limits.affinities} fit`);
  if (isPerNode(spec) && affinities.length > 0)
    refuse(field, 'a global service has a task on each node: it is near everybody', 'use constraints, or replicas');
  for (const { service, scope, apart, preferred } of affinities) {
    if (service === qualifiedName(spec.project, spec.name) && preferred)
      refuse(
        field,
        'what its own tasks would rather do is not an affinity',
        apart ? 'use preferences: - spread: …, or mode: required' : 'use x-strategy: binpack, or mode: required',
      );
    const both = affinities.some((one) => one.service === service && one.scope === scope && one.apart !== apart);
    if (both && apart)
      refuse(field, `it cannot be with ${service} and apart from it in one ${scope}`, 'keep one of the two');
  }
}

function networkSettingProblems(spec: ServiceSpec, refuse: Refuse): void {
  const { networks, networkMode, container, bandwidth } = spec.template;
  if (networks.length > limits.networksOfService)
    refuse('networks', `${networks.length} networks are too many`, `at most ${limits.networksOfService} fit`);
  if (container.drainMs > limits.drainMs) refuse('x-drain', 'so long a drain is not allowed', 'at most 1h');
  const fixed = networks.find(({ ipv4Address }) => ipv4Address !== '');
  if (fixed && (isPerNode(spec) || spec.replicas > 1))
    refuse(
      'networks',
      `only one task can have the address ${fixed.ipv4Address}`,
      'remove ipv4_address, or use one replica',
    );
  if (fixed && spec.update.order === 'start-first')
    refuse(
      'networks',
      `the new task cannot have the address ${fixed.ipv4Address} before the old one has gone`,
      'remove ipv4_address, or use order: stop-first',
    );
  if (networkMode === '') return;
  if (networks.length > 0)
    refuse('networks', `with network_mode: ${networkMode} there are no networks`, 'keep one of the two');
  if (bandwidth.egressBitsPerSecond + bandwidth.ingressBitsPerSecond > 0)
    refuse('x-bandwidth', `with network_mode: ${networkMode} there is no interface of its own to limit`, 'remove it');
  if (container.links.length > 0)
    refuse('links', `with network_mode: ${networkMode} nothing can be linked`, 'remove links:');
  if (networkMode !== 'host' && spec.ports.length > 0)
    refuse(
      'ports',
      networkMode === 'none'
        ? 'with network_mode: none no port can be reached'
        : `the ports are those of the service whose network it has`,
      networkMode === 'none' ? 'remove ports:' : `publish them at service ${sharedNetworkOf(networkMode)}`,
    );
  if (networkMode === 'host' && spec.ports.some((port) => port.mode !== 'host' || port.published !== port.target))
    refuse(
      'ports',
      "with network_mode: host ports are the host's own",
      'use mode: host, and the same port on both sides',
    );
  if (networkMode === 'host' && spec.allowFrom)
    refuse('x-allow-from', "with network_mode: host the host's firewall decides who may call it", 'remove it');
}

function bytesOf(texts: readonly string[]): number {
  let total = 0;
  for (const text of texts) total += text.length + 1;
  return total;
}
