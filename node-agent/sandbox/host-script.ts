/** What a host runs, as text: the script that makes its namespaces a host, and the one that keeps its services running. Pure. */
import type { Hierarchy } from './cgroups.ts';
import { firstManager, type HostLayout, type Role, registryName } from './layout.ts';
import { managerAddress, placeOf, switchNetworks, type Topology, worldAddress } from './topology.ts';

/** Where the agent of a host keeps its data, as the host sees it. */
export const agentData = '/var/lib/gantry/agent';

/** Everything the scripts need to know. */
export interface HostPlan {
  readonly name: string;
  readonly role: Role;
  /** Of all managers. */
  readonly managers: readonly string[];
  readonly layout: HostLayout;
  readonly hierarchies: readonly Hierarchy[];
  readonly nodeProgram: string;
  readonly codeDir: string;
  readonly compileCache: string;
  /** Only containerd or the registry: no control plane, no agents. */
  readonly bare: boolean;
  readonly topology: Topology;
}

/** Runs as the first process of the host's pid namespace; waits for a line on its input before it starts anything. */
export function bootScript(plan: HostPlan): string {
  const { layout } = plan;
  return `set -eu
mount --make-rprivate /
mount -t proc proc /proc
umount -R -l /sys
mount -t sysfs sysfs /sys
${cgroupMounts(plan.hierarchies)}
mount --bind ${quote(layout.bootIdFile)} /proc/sys/kernel/random/boot_id
mount -t overlay overlay -o ${quote(`lowerdir=/etc,upperdir=${layout.etc},workdir=${layout.etc}-work`)} /etc
rm -f /etc/resolv.conf
echo ${plan.name} > /etc/hostname
printf '%s\\n' ${knownHosts(plan)} > /etc/hosts
echo 'nameserver ${worldAddress}' > /etc/resolv.conf
hostname ${plan.name}
mkdir -p /run /var/lib/containerd /var/lib/gantry /var/log
mount --bind ${quote(layout.run)} /run
mount --bind ${quote(layout.log)} /var/log
mount --bind ${quote(layout.containerd)} /var/lib/containerd
mount --bind ${quote(layout.gantry)} /var/lib/gantry
mkdir -p /run/lock
ip link set lo up
read go
exec tini -- sh /run/sandbox/services.sh </dev/null
`;
}

/** Starts the host's services and starts again what ends. */
export function servicesScript(plan: HostPlan): string {
  const services = plan.role === 'manager' ? managerServices(plan) : workerServices(plan);
  return `ulimit -n 1048576 2>/dev/null || ulimit -n "$(ulimit -H -n)"
program=${quote(plan.codeDir)}
export NODE_COMPILE_CACHE=${quote(plan.compileCache)} HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
keep() {
  service=$1
  shift
  while :; do
    "$@" >> "/var/log/$service.log" 2>&1 && code=0 || code=$?
    echo "sandbox: $service ended with $code" >> "/var/log/$service.log"
    sleep 0.2
  done
}
${services}
wait
`;
}

/** The configuration files that lie in /run/sandbox, by name. */
export function hostFiles(plan: HostPlan): Record<string, string> {
  const scripts = { 'services.sh': servicesScript(plan), 'containerd.toml': containerdConfig };
  return plan.role === 'worker' ? scripts : { ...scripts, 'registry.yml': registryConfig };
}

function workerServices(plan: HostPlan): string {
  const containerd = 'keep containerd containerd --config /run/sandbox/containerd.toml &';
  if (plan.bare) return containerd;
  return `${containerd}
agent() (
  if [ ! -e /var/lib/gantry/joined ]; then
    until [ -s /run/sandbox/join-token ]; do sleep 0.05; done
    set -- --token "$(cat /run/sandbox/join-token)"
  fi
  . /run/sandbox/settings.env
  exec env ${leanNode(plan, 2)} "\${GANTRY_PROGRAM:-$program}/node-agent/main.ts" --data ${agentData} --run /run/gantry \\
    --name ${plan.name} --advertise ${addressOfPlan(plan)} --control-plane ${plan.managers.map((one) => `${managerAddress(one)}:7400`).join(',')} \\
    --containerd /run/containerd/containerd.sock --insecure-registry ${registryName} --insecure-registry ${switchNetworks} "$@"
)
mkdir -p -m 0700 /run/gantry
keep agent agent &`;
}

function addressOfPlan({ topology, name }: HostPlan): string {
  return placeOf(topology, name).address;
}

/** Lines of /etc/hosts, each quoted. */
function knownHosts(plan: HostPlan): string {
  const others = plan.managers.filter((one) => one !== plan.name);
  const registry = `${managerAddress(firstManager)} ${registryName.split(':')[0]}`;
  const lines = [
    '127.0.0.1 localhost',
    `${addressOfPlan(plan)} ${plan.name}`,
    ...others.map((one) => `${managerAddress(one)} ${one}`),
    registry,
  ];
  return lines.map(quote).join(' ');
}

/** Variables as a file that a shell reads. */
export function settingsFile(settings: Readonly<Record<string, string>>): string {
  return Object.entries(settings)
    .map(([name, value]) => `export ${name}=${quote(value)}\n`)
    .join('');
}

/** As in the systemd units: after a burst of starts an agent holds 25 to 45 MB less than without. */
function leanNode({ nodeProgram }: HostPlan, semiSpaceMegabytes: number): string {
  return `MALLOC_ARENA_MAX=1 MALLOC_TRIM_THRESHOLD_=131072 ${quote(nodeProgram)} --max-semi-space-size=${semiSpaceMegabytes}`;
}

function managerServices(plan: HostPlan): string {
  const registry = plan.name === firstManager ? 'keep registry docker-registry serve /run/sandbox/registry.yml &' : '';
  if (plan.bare) return registry;
  const main = `${leanNode(plan, 4)} "\${GANTRY_PROGRAM:-$program}/control-plane/main.ts"`;
  const data = '/var/lib/gantry/control-plane';
  const managers = plan.managers.map((one) => `${one}=${managerAddress(one)}`).join(',');
  const place = `--data ${data} --name ${plan.name} --advertise ${addressOfPlan(plan)} --managers ${managers}`;
  // The keeper brings the others what the first has made; the certificate comes last.
  const identity = plan.name === firstManager ? '' : `until [ -s ${data}/pki/ca.pem ]; do sleep 0.05; done\n`;
  return `${registry}
mkdir -p -m 0700 /run/gantry ${data} /var/lib/gantry/etcd /var/lib/gantry/nats
${identity}until (. /run/sandbox/settings.env && ${main} init ${place}) >> /var/log/control-plane.log 2>&1; do sleep 0.5; done
etcd() (
  set -a
  . ${data}/etcd.env
  exec etcd --log-level warn --logger zap
)
keep etcd etcd &
keep nats nats-server --config ${data}/nats.conf &
control_plane() (
  . /run/sandbox/settings.env
  exec env ${main} run ${place} --nats managers --socket /run/gantry/control-plane.sock \\
    --nats-reload 'pkill -HUP -x nats-server' --etcd-restart 'pkill -TERM -x etcd'
)
keep control-plane control_plane &`;
}

/** Version 1 trees are mounted one by one; of version 2 the host is given controllers to pass on, once the waiting process has left its root. */
function cgroupMounts(hierarchies: readonly Hierarchy[]): string {
  if (hierarchies.some((one) => one.version === 2)) {
    return `mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p /sys/fs/cgroup/init
echo $$ > /sys/fs/cgroup/init/cgroup.procs`;
  }
  const mounts = hierarchies.map((one) => {
    const dir = `/sys/fs/cgroup/${one.options.replace('none,name=', '')}`;
    return `mkdir -p ${dir} && mount -t cgroup -o ${one.options} cgroup ${dir}`;
  });
  return ['mount -t tmpfs -o mode=0755 tmpfs /sys/fs/cgroup', ...mounts].join('\n');
}

function quote(text: string): string {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

const containerdConfig = `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart",
  "io.containerd.internal.v1.tracing", "io.containerd.tracing.processor.v1.otlp",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.native", "io.containerd.snapshotter.v1.zfs"
]

[grpc]
  address = "/run/containerd/containerd.sock"

[debug]
  level = "warn"
`;

const registryConfig = `version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage:
  filesystem: {rootdirectory: /var/lib/gantry/registry}
  delete: {enabled: true}
http: {addr: ':5000'}
`;
