/** What the agent tells of its machine: platform, capacity, kernel, the versions of what it runs on. */
import { readFileSync } from 'node:fs';
import { arch, availableParallelism, release } from 'node:os';
import { Fault } from '#proto/kernel/errors.ts';
import { nodeId } from '#proto/model/ids.ts';
import type { Node, Platform } from '#proto/model/node.ts';
import type { GenericResource } from '#proto/model/resources.ts';
import packageJson from '../package.json' with { type: 'json' };

export const agentVersion = packageJson.version;
const architectures: Record<string, string> = { x64: 'amd64', arm: 'arm', arm64: 'arm64' };

/** Of this process's machine, in OCI's words. */
export function machinePlatform(): Platform {
  const architecture = architectures[arch()] ?? arch();
  return { os: 'linux', architecture, variant: architecture === 'arm64' ? 'v8' : '' };
}

/** Total memory of /proc/meminfo, bytes. Pure. */
export function memoryOf(meminfo: string): number {
  const kibibytes = Number(/^MemTotal:\s+(\d+) kB$/m.exec(meminfo)?.[1]);
  if (!(kibibytes > 0)) throw new Fault('unsupported', '/proc/meminfo does not tell the total memory');
  return kibibytes * 1_024;
}

/** The record that a Hello carries; what the control plane decides (id, labels, subnet, state) is left empty. */
export function describeMachine(parts: {
  readonly name: string;
  readonly address: string;
  /** CIDR that the operator wants its tasks' addresses of; empty: any. */
  readonly pinnedSubnet: string;
  readonly bootId: string;
  /** Public; empty where this machine cannot do WireGuard. */
  readonly wireguardKey: string;
  /** What the operator says that it offers. */
  readonly resources: readonly GenericResource[];
  /** Versions by component. */
  readonly components: Readonly<Record<string, string>>;
}): Node {
  return {
    id: nodeId(''),
    name: parts.name,
    labels: {},
    availability: 'active',
    state: 'unknown',
    message: '',
    platform: machinePlatform(),
    capacity: {
      cpuMillis: availableParallelism() * 1_000,
      memoryBytes: memoryOf(readFileSync('/proc/meminfo', 'utf8')),
      pids: Number(readFileSync('/proc/sys/kernel/pid_max', 'utf8')),
      generic: parts.resources,
    },
    address: parts.address,
    subnet: '',
    pinnedSubnet: parts.pinnedSubnet,
    link: '',
    address6: '',
    foreignNetworks: [],
    wireguardKey: parts.wireguardKey,
    bootId: parts.bootId,
    agentVersion,
    kernel: release(),
    components: parts.components,
    runtimes: Object.keys(parts.components).filter((name) => name === 'runc' || name === 'crun'),
    joinedAtMs: 0,
    stateAtMs: 0,
    away: '',
    fenced: false,
    unaccounted: false,
  };
}
