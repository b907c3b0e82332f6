/** The limits of names, numbers and sizes, checked in one place for every door that takes a spec. */
import { namePattern } from './ids.ts';
import type { ServiceSpec } from './service.ts';

export const limits = {
  replicas: 10_000,
  envBytes: 128 * 1024,
  labelBytes: 64 * 1024,
  commandBytes: 128 * 1024,
  mounts: 64,
  publishedPorts: 256,
  constraints: 32,
  stopGracePeriodMs: 24 * 3_600_000,
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
  const env = bytesOf(container.env);
  if (env > limits.envBytes)
    refuse('environment', `the environment has ${env} bytes`, `at most ${limits.envBytes} fit`);
  for (const entry of container.env)
    if (entry.includes('\0')) refuse('environment', 'a variable holds a NUL character', 'remove it');
  if (bytesOf(container.command) > limits.commandBytes || bytesOf(container.entrypoint) > limits.commandBytes)
    refuse('command', 'the command is too long', `at most ${limits.commandBytes} bytes fit`);
  for (const [field, labels] of [
    ['labels', container.labels],
    ['deploy.labels', spec.labels],
  ] as const)
    if (bytesOf(Object.entries(labels).flat()) > limits.labelBytes)
      refuse(field, 'the labels are too large', `at most ${limits.labelBytes} bytes fit`);
  if (container.mounts.length > limits.mounts)
    refuse('volumes', `${container.mounts.length} mounts are too many`, `at most ${limits.mounts} fit`);
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
  return problems;
}

function bytesOf(texts: readonly string[]): number {
  let total = 0;
  for (const text of texts) total += text.length + 1;
  return total;
}
