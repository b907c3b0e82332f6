/** What tasks leave on a host while they are there, and must not leave when they are gone. */
import type { Cluster } from './cluster.ts';

/** Each word is what a kind of remains looks like on a host; lines that only name a place all tasks share are left out. */
export const leakLooks = {
  containers:
    'ls /var/lib/gantry/agent/containers /var/lib/gantry/agent/exits /run/gantry/netns /run/gantry/oci/* 2>/dev/null | grep -x "[a-z0-9]\\{25\\}"',
  files:
    'find /var/lib/gantry/agent/task-files /var/lib/gantry/agent/volumes-of-tasks /var/lib/gantry/agent/logs -mindepth 1 2>/dev/null; find /var/lib/gantry/agent /run/gantry -regextype posix-extended -regex ".*/[a-z0-9]{25}(/.*)?" 2>/dev/null',
  links: 'ip -o link | grep -o ": gt[^:@]*"',
  mounts:
    'grep -E "overlay|netns|subpaths|/containers/" /proc/self/mountinfo | grep -E " /(run|var/lib)/(gantry|containerd)" | cut -d" " -f5',
  cgroups: 'find /sys/fs/cgroup -type d -regextype posix-extended -regex ".*/gantry/.*[a-z0-9]{25}.*"',
  layers:
    'ctr -n gantry snapshots ls | grep -E "^[a-z0-9]{25} "; ctr -n gantry snapshots ls | grep Active; ctr -n gantry leases ls | tail -n +2',
  processes: 'ps -eo comm | grep -E "conmon|runc|^entry|^nc$|^init$"',
  connections: 'grep -o "10\\.19[2-9]\\.[0-9.]*" /proc/net/nf_conntrack | grep -v "\\.1$"',
} as const;

/** What is found of each kind on each host; a kind of which nothing is there is not named. `more`: looks of the caller's own. */
export async function remains(
  cluster: Cluster,
  hosts: readonly string[],
  more: Readonly<Record<string, string>> = {},
): Promise<Record<string, string[]>> {
  const found: Record<string, string[]> = {};
  for (const host of hosts) {
    for (const [kind, line] of Object.entries({ ...leakLooks, ...more })) {
      const lines = (await cluster.sandbox.run(host, ['sh', '-c', `{ ${line}; } || true`])).split('\n').filter(Boolean);
      if (lines.length > 0) found[`${kind} of ${host}`] = lines;
    }
  }
  return found;
}
