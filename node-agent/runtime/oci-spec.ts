/** From a container request to the config.json of the OCI runtime specification (1.0). Pure. */
import { posix } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { Resources } from '#proto/model/resources.ts';
import type { Ulimit } from '#proto/model/service.ts';
import { capabilities } from './capabilities.ts';
import { processArgs, processEnv, workingDirectory } from './process-args.ts';
import type { ContainerNetwork, ContainerRequest, PreparedMount } from './runtime.ts';
import type { SeccompProfile } from './seccomp.ts';
import type { ProcessUser } from './user.ts';

/** What the host gives, and what was read from the root filesystem. */
export interface SpecSurroundings {
  readonly rootfsPath: string;
  /** Absolute, in every cgroup hierarchy: `/gantry/ID`. */
  readonly cgroupPath: string;
  readonly user: ProcessUser;
  readonly capabilitiesOfHost: readonly string[];
  readonly seccomp: (capabilities: readonly string[]) => SeccompProfile;
  /** A static init, where the request wants one. */
  readonly initPath: string;
  /** The kernel accounts swap, so that it can be limited. */
  readonly swapLimit: boolean;
  readonly maxOpenFiles: number;
}

/** The process of a config.json, and of `exec --process`. */
export interface OciProcess {
  readonly terminal: boolean;
  readonly consoleSize?: { readonly width: number; readonly height: number };
  readonly user: { readonly uid: number; readonly gid: number; readonly additionalGids: readonly number[] };
  readonly args: readonly string[];
  readonly env: readonly string[];
  readonly cwd: string;
  readonly capabilities: Readonly<Record<'bounding' | 'effective' | 'permitted', readonly string[]>>;
  readonly rlimits: readonly { readonly type: string; readonly soft: number; readonly hard: number }[];
  readonly noNewPrivileges: boolean;
}

export interface OciMount {
  readonly destination: string;
  readonly type: string;
  readonly source: string;
  readonly options: readonly string[];
}

export interface OciSpec {
  readonly ociVersion: string;
  readonly process: OciProcess;
  readonly root: { readonly path: string; readonly readonly: boolean };
  readonly hostname: string;
  readonly mounts: readonly OciMount[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly linux: Readonly<Record<string, unknown>>;
}

export const defaultPids = 4096;
const initTarget = '/sbin/docker-init';
const cpuPeriodUs = 100_000;

const maskedPaths = [
  '/proc/asound',
  '/proc/acpi',
  '/proc/interrupts',
  '/proc/kcore',
  '/proc/keys',
  '/proc/latency_stats',
  '/proc/timer_list',
  '/proc/timer_stats',
  '/proc/sched_debug',
  '/proc/scsi',
  '/sys/firmware',
  '/sys/devices/virtual/powercap',
];
const readonlyPaths = ['/proc/bus', '/proc/fs', '/proc/irq', '/proc/sys', '/proc/sysrq-trigger'];

/** Docker's: a process without capabilities may bind low ports and ping. */
const defaultSysctls = { 'net.ipv4.ip_unprivileged_port_start': '0', 'net.ipv4.ping_group_range': '0 2147483647' };
const namespacedSysctls =
  /^(net\.[a-zA-Z0-9_.\-/]+|fs\.mqueue\.[a-z_]+|kernel\.(msgmax|msgmnb|msgmni|sem|shmall|shmmax|shmmni|shm_rmid_forced))$/;

/** Device numbers every container may use (moby's list); all others are denied by default. */
const allowedDevices = [
  { type: 'c', major: 1, minor: 3 },
  { type: 'c', major: 1, minor: 5 },
  { type: 'c', major: 1, minor: 7 },
  { type: 'c', major: 1, minor: 8 },
  { type: 'c', major: 1, minor: 9 },
  { type: 'c', major: 5, minor: 0 },
  { type: 'c', major: 5, minor: 2 },
  { type: 'c', major: 136 },
];

/** Faults `invalid`, or `unsupported` for what this host cannot give; each names the field and what to write instead. */
export function ociSpec(request: ContainerRequest, around: SpecSurroundings): OciSpec {
  const { container } = request;
  const { privileged } = container;
  const held = capabilities({ add: container.capAdd, drop: container.capDrop, privileged }, around.capabilitiesOfHost);
  const args = processArgs(container, request.image);
  return {
    ociVersion: '1.0.2',
    process: {
      terminal: container.tty,
      user: { uid: around.user.uid, gid: around.user.gid, additionalGids: around.user.additionalGids },
      args: container.init ? [initTarget, '--', ...args] : args,
      env: processEnv([request.image.env, container.env], {
        hostname: request.hostname,
        home: around.user.home,
        tty: container.tty,
      }),
      cwd: workingDirectory(container.workingDir, request.image.workingDir),
      capabilities: { bounding: held, effective: held, permitted: held },
      rlimits: rlimits(container.ulimits, around.maxOpenFiles),
      noNewPrivileges: !container.newPrivileges && !privileged,
    },
    root: { path: around.rootfsPath, readonly: container.readOnly },
    hostname: request.hostname,
    mounts: mountsOf(request, around.initPath),
    annotations: request.annotations,
    linux: {
      namespaces: [
        { type: 'pid' },
        { type: 'ipc' },
        { type: 'uts' },
        { type: 'mount' },
        { type: 'cgroup' },
        ...networkNamespace(request.network),
      ],
      cgroupsPath: around.cgroupPath,
      resources: resourcesOf(request.limits, privileged, around.swapLimit),
      sysctl: sysctlsOf(container.sysctls, request.network),
      ...(privileged ? {} : { maskedPaths, readonlyPaths }),
      ...(privileged || container.seccompUnconfined ? {} : { seccomp: around.seccomp(held) }),
    },
  };
}

/** CPU quota in microseconds per period of 100 ms, the least the kernel takes being 1 ms. */
export function cpuQuota(cpuMillis: number): { readonly quotaUs: number; readonly periodUs: number } {
  return { quotaUs: Math.max(1000, Math.round((cpuMillis * cpuPeriodUs) / 1000)), periodUs: cpuPeriodUs };
}

function resourcesOf(limits: Resources, privileged: boolean, swapLimit: boolean): Readonly<Record<string, unknown>> {
  const { quotaUs, periodUs } = cpuQuota(limits.cpuMillis);
  return {
    devices: privileged
      ? [{ allow: true, access: 'rwm' }]
      : [
          { allow: false, access: 'rwm' },
          ...allowedDevices.map((device) => ({ allow: true, access: 'rwm', ...device })),
        ],
    pids: { limit: limits.pids > 0 ? limits.pids : defaultPids },
    ...(limits.cpuMillis > 0 ? { cpu: { quota: quotaUs, period: periodUs } } : {}),
    ...(limits.memoryBytes > 0
      ? { memory: { limit: limits.memoryBytes, ...(swapLimit ? { swap: limits.memoryBytes } : {}) } }
      : {}),
  };
}

/** With neither, the container stays in the namespace of the host; a new one gets its loopback from the runtime. */
function networkNamespace(network: ContainerNetwork): readonly { readonly type: string; readonly path?: string }[] {
  if (network === 'host') return [];
  return network === 'none' ? [{ type: 'network' }] : [{ type: 'network', path: network.path }];
}

function sysctlsOf(
  wanted: Readonly<Record<string, string>>,
  network: ContainerNetwork,
): Readonly<Record<string, string>> {
  for (const name of Object.keys(wanted)) {
    if (network === 'host' && name.startsWith('net.')) {
      throw new Fault('invalid', `sysctl "${name}" would be the host's own, with network_mode: host`, {
        remedy: 'remove it, and set it on the host where that is meant',
      });
    }
    if (namespacedSysctls.test(name) && !name.includes('..')) continue;
    throw new Fault('invalid', `sysctl "${name}" is not one of a container's own`, {
      remedy: 'only net.*, fs.mqueue.* and the IPC limits of kernel.* are; set others on the host',
    });
  }
  return network === 'host' ? wanted : { ...defaultSysctls, ...wanted };
}

const rlimitNames =
  'as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack'.split(' ');

function rlimits(wanted: readonly Ulimit[], maxOpenFiles: number): OciProcess['rlimits'] {
  const made = wanted.map(({ name, soft, hard }) => {
    const known = name.toLowerCase();
    if (!rlimitNames.includes(known)) {
      throw new Fault('invalid', `ulimit "${name}" does not exist`, { remedy: `use one of ${rlimitNames.join(', ')}` });
    }
    const unlimited = (value: number) => (value < 0 ? Number.MAX_SAFE_INTEGER : value);
    if (unlimited(soft) > unlimited(hard)) {
      throw new Fault('invalid', `ulimit ${name}: the soft limit ${soft} is above the hard limit ${hard}`);
    }
    return { type: `RLIMIT_${known.toUpperCase()}`, soft, hard };
  });
  if (made.some(({ type }) => type === 'RLIMIT_NOFILE')) return made;
  return [...made, { type: 'RLIMIT_NOFILE', soft: maxOpenFiles, hard: maxOpenFiles }];
}

function mountsOf(request: ContainerRequest, initPath: string): OciMount[] {
  const { container } = request;
  const access = container.privileged ? 'rw' : 'ro';
  const own: OciMount[] = [
    { destination: '/proc', type: 'proc', source: 'proc', options: ['nosuid', 'noexec', 'nodev'] },
    {
      destination: '/dev',
      type: 'tmpfs',
      source: 'tmpfs',
      options: ['nosuid', 'strictatime', 'mode=755', 'size=65536k'],
    },
    {
      destination: '/dev/pts',
      type: 'devpts',
      source: 'devpts',
      options: ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', 'gid=5'],
    },
    {
      destination: '/dev/shm',
      type: 'tmpfs',
      source: 'shm',
      options: ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k'],
    },
    { destination: '/dev/mqueue', type: 'mqueue', source: 'mqueue', options: ['nosuid', 'noexec', 'nodev'] },
    { destination: '/sys', type: 'sysfs', source: 'sysfs', options: ['nosuid', 'noexec', 'nodev', access] },
    {
      destination: '/sys/fs/cgroup',
      type: 'cgroup',
      source: 'cgroup',
      options: ['nosuid', 'noexec', 'nodev', 'relatime', access],
    },
  ];
  const asked = request.mounts.map(preparedMount);
  const init: OciMount[] = container.init
    ? [
        {
          destination: initTarget,
          type: 'bind',
          source: initPath,
          options: ['bind', 'ro', 'rprivate', 'nosuid', 'nodev'],
        },
      ]
    : [];
  const targets = new Set(asked.map(({ destination }) => destination));
  // Parents before children, so that a mount is not hidden by the one above it.
  const depth = (mount: OciMount) => mount.destination.split('/').length;
  return [
    ...own.filter(({ destination }) => !targets.has(destination)),
    ...init,
    ...asked.sort((a, b) => depth(a) - depth(b)),
  ];
}

function preparedMount(mount: PreparedMount): OciMount {
  const destination = posix.normalize(`${mount.target}/`).replace(/(.)\/+$/, '$1');
  const forbidden = destination === '/' || destination === '/proc' || destination.startsWith('/proc/');
  if (!mount.target.startsWith('/') || forbidden) {
    throw new Fault('invalid', `nothing may be mounted at "${mount.target}"`, {
      remedy: 'use an absolute path below /, outside /proc',
    });
  }
  const access = mount.readOnly ? 'ro' : 'rw';
  return mount.type === 'tmpfs'
    ? { destination, type: 'tmpfs', source: 'tmpfs', options: ['nosuid', 'nodev', 'noexec', access, ...mount.options] }
    : {
        destination,
        type: 'bind',
        source: mount.source,
        options: ['rbind', access, mount.propagation || 'rprivate', ...mount.options],
      };
}
