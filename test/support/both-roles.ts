/** A machine of a sandbox's manager that is a node too, as in a cluster of three machines. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { codeDir, hostLayout } from '#node-agent/sandbox/layout.ts';
import { managerAddress } from '#node-agent/sandbox/topology.ts';
import type { Cluster } from './cluster.ts';

/** What the host of a worker runs (node-agent/sandbox/host-script.ts), beside the manager's own, until its power goes. Its node has the manager's name. */
export async function makeNode(cluster: Cluster, manager: string, managers: readonly string[]): Promise<void> {
  const { code, stdout, stderr } = await cluster.gantry('token', 'create', '--for', '1h');
  if (code !== 0) throw new Error(`token create ended with ${code}: ${stderr}`);
  const controlPlane = managers.map((one) => `${managerAddress(one)}:7400`).join(',');
  const agent = [
    ...[process.execPath, `${codeDir}/node-agent/main.ts`, '--data /var/lib/gantry/agent --run /run/gantry'],
    ...[`--name ${manager} --advertise ${managerAddress(manager)} --control-plane ${controlPlane}`],
    ...['--containerd /run/containerd/containerd.sock --insecure-registry registry:5000', `--token ${stdout.trim()}`],
  ].join(' ');
  const services = `keep() { while :; do "$@"; sleep 0.2; done; }
keep containerd --config /run/sandbox/containerd.toml > /var/log/containerd.log 2>&1 &
keep ${agent} > /var/log/agent.log 2>&1 &
wait
`;
  // In a file: who ends the agent by its command line does not end who starts it again.
  writeFileSync(join(hostLayout(cluster.sandbox.layout, manager).run, 'sandbox/node.sh'), services);
  await cluster.sandbox.run(manager, ['sh', '-c', 'setsid sh /run/sandbox/node.sh < /dev/null > /dev/null 2>&1 &']);
  await cluster.nodeIs(manager, 'ready', 30_000);
}
