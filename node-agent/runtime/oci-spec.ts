/** From a container request to the config.json of the OCI runtime specification (1.0). Pure. */
import { posix } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { ContainerSpec, DeviceRule, Ulimit } from '#proto/model/service.ts';
import { capabilities } from './capabilities.ts';
import { type DeviceNumber, pidsOf, quotaOf, swapLimitOf } from './cgroup-limits.ts';
import type { HostDevice } from './devices.ts';
import { processArgs, processEnv, workingDirectory } from './process-args.ts';
import type { ContainerNetwork, ContainerRequest, LiveSettings, PreparedMount } from './runtime.ts';
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
  /** Those the request names, as they are on this node. */
  readonly devices: readonly HostDevice[];
  readonly deviceNumber: DeviceNumber;
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
  readonly oomScoreAdj?: number;
  readonly apparmorProfile?: string;
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
  readonly hostname?: string;
  readonly mounts: readonly OciMount[];
  readonly annotations: Readonly<Record<string, string>>;
  readonly linux: Readonly<Record<string, unknown>>;
}

const initTarget = '/sbin/docker-init';
const defaultShmBytes = 64 * 2 ** 20;

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
      ...(container.oomScoreAdj !== 0 ? { oomScoreAdj: container.oomScoreAdj } : {}),
      ...(container.apparmorProfile !== '' ? { apparmorProfile: container.apparmorProfile } : {}),
    },
    root: { path: around.rootfsPath, readonly: container.readOnly },
    ...(container.uts === 'host' ? {} : { hostname: request.hostname }),
    mounts: mountsOf(request, around.initPath),
    annotations: { ...container.annotations, ...request.annotations },
    linux: {
      namespaces: namespacesOf(request),
      cgroupsPath: around.cgroupPath,
      resources: resourcesOf(request, around),
      ...(around.devices.length > 0 ? { devices: around.devices.map(({ permissions: _, ...node }) => node) } : {}),
      sysctl: sysctlsOf(container, request.network),
      ...(privileged || container.systemPathsUnconfined ? {} : { maskedPaths, readonlyPaths }),
      ...(privileged || container.seccompUnconfined ? {} : { seccomp: around.seccomp(held) }),
    },
  };
}

function resourcesOf(request: ContainerRequest, around: SpecSurroundings): Readonly<Record<string, unknown>> {
  const { limits, controls, container } = request;
  const { quotaUs, periodUs } = quotaOf(request);
  const cpu = {
    ...(limits.cpuMillis > 0 ? { quota: quotaUs, period: periodUs } : {}),
    ...(controls.cpuShares > 0 ? { shares: controls.cpuShares } : {}),
    ...(controls.cpusetCpus !== '' ? { cpus: controls.cpusetCpus } : {}),
  };
  const memory = {
    ...(limits.memoryBytes > 0 ? { limit: limits.memoryBytes } : {}),
    ...(limits.memoryBytes > 0 && around.swapLimit ? { swap: swapLimitOf(request) ?? -1 } : {}),
    ...(controls.memorySwappiness !== undefined ? { swappiness: controls.memorySwappiness } : {}),
    ...(controls.oomKillDisable ? { disableOOMKiller: true } : {}),
  };
  return {
    devices: deviceRules(container, around.devices),
    pids: { limit: pidsOf(request) },
    ...(Object.keys(cpu).length > 0 ? { cpu } : {}),
    ...(Object.keys(memory).length > 0 ? { memory } : {}),
    ...blockIo(request, around.deviceNumber),
  };
}

function deviceRules({ privileged, deviceRules }: ContainerSpec, devices: readonly HostDevice[]): readonly object[] {
  if (privileged) return [{ allow: true, access: 'rwm' }];
  const numbers = ({ type, major, minor, permissions }: DeviceRule) => ({
    allow: true,
    type,
    ...(major >= 0 ? { major } : {}),
    ...(minor >= 0 ? { minor } : {}),
    access: permissions,
  });
  return [
    { allow: false, access: 'rwm' },
    ...allowedDevices.map((device) => ({ allow: true, access: 'rwm', ...device })),
    ...devices.map(({ type, major, minor, permissions: access }) => ({ allow: true, type, major, minor, access })),
    ...deviceRules.map(numbers),
  ];
}

function blockIo({ controls }: LiveSettings, numberOf: DeviceNumber): { readonly blockIO?: object } {
  const { blkioWeight, blkioWeights, blkioRates } = controls;
  if (blkioWeight === 0 && blkioWeights.length === 0 && blkioRates.length === 0) return {};
  const device = (path: string) => {
    const [major, minor] = numberOf(path).split(':').map(Number);
    return { major, minor };
  };
  const ofKind = (kind: string) =>
    blkioRates.filter((one) => one.kind === kind).map(({ path, rate }) => ({ ...device(path), rate }));
  return {
    blockIO: {
      ...(blkioWeight > 0 ? { weight: blkioWeight } : {}),
      weightDevice: blkioWeights.map(({ path, weight }) => ({ ...device(path), weight })),
      throttleReadBpsDevice: ofKind('read_bps'),
      throttleWriteBpsDevice: ofKind('write_bps'),
      throttleReadIOPSDevice: ofKind('read_iops'),
      throttleWriteIOPSDevice: ofKind('write_iops'),
    },
  };
}

/** Those that are not its own are its host's, or another container's. */
function namespacesOf({ container, network, pidNamespace }: ContainerRequest): readonly object[] {
  return [
    ...(container.pid === 'host' ? [] : [{ type: 'pid', ...(pidNamespace ? { path: pidNamespace } : {}) }]),
    ...(container.ipc === 'host' ? [] : [{ type: 'ipc' }]),
    ...(container.uts === 'host' ? [] : [{ type: 'uts' }]),
    { type: 'mount' },
    ...(container.cgroup === 'host' ? [] : [{ type: 'cgroup' }]),
    ...networkNamespace(network),
  ];
}

/** With neither, the container stays in the namespace of the host; a new one gets its loopback from the runtime. */
function networkNamespace(network: ContainerNetwork): readonly { readonly type: string; readonly path?: string }[] {
  if (network === 'host') return [];
  return network === 'none' ? [{ type: 'network' }] : [{ type: 'network', path: network.path }];
}

function sysctlsOf(
  { sysctls, ipc, uts, domainname }: ContainerSpec,
  network: ContainerNetwork,
): Readonly<Record<string, string>> {
  for (const name of Object.keys(sysctls)) {
    const mode = name.startsWith('net.') ? network === 'host' && 'network_mode' : ipc === 'host' && 'ipc';
    if (mode) {
      throw new Fault('invalid', `sysctl "${name}" would be the host's own, with ${mode}: host`, {
        remedy: 'remove it, and set it on the host where that is meant',
      });
    }
    if (namespacedSysctls.test(name) && !name.includes('..')) continue;
    throw new Fault('invalid', `sysctl "${name}" is not one of a container's own`, {
      remedy: 'only net.*, fs.mqueue.* and the IPC limits of kernel.* are; set others on the host',
    });
  }
  return {
    ...(network === 'host' ? {} : defaultSysctls),
    // The OCI runtimes of today have no other word for it.
    ...(domainname !== '' && uts !== 'host' ? { 'kernel.domainname': domainname } : {}),
    ...sysctls,
  };
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
    sharedMemory(container),
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

/** With its host's IPC namespace it has its host's shared memory, too. */
function sharedMemory({ ipc, shmBytes }: ContainerSpec): OciMount {
  const destination = '/dev/shm';
  if (ipc === 'host')
    return { destination, type: 'bind', source: '/dev/shm', options: ['rbind', 'rw', 'nosuid', 'noexec', 'nodev'] };
  const size = `size=${Math.ceil((shmBytes || defaultShmBytes) / 1024)}k`;
  return { destination, type: 'tmpfs', source: 'shm', options: ['nosuid', 'noexec', 'nodev', 'mode=1777', size] };
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
