/** What runs on the hosts of a sandbox, in pgrep's words; the brackets keep a pattern from finding the shell that asks. */
export const hostParts = {
  agent: "-f '[n]ode-agent/main.ts'",
  watchdog: "-f '[w]atchdog/main.ts'",
  'control plane': "-f '[c]ontrol-plane/main.ts run'",
  containerd: '-x containerd',
  etcd: '-x etcd',
  NATS: '-x nats-server',
  registry: '-x docker-registry',
} as const;

export type HostPart = keyof typeof hostParts;

/** In a host's shell: ends all processes of the part. */
export function killing(part: HostPart): string {
  return `kill -9 $(pgrep ${hostParts[part]})`;
}
