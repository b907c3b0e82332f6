/** What the settings of a container say against each other. */
import { isPerNode } from './job.ts';
import { sharedNetworkOf } from './network.ts';
import type { ServiceSpec } from './service.ts';

type Refuse = (field: string, message: string, remedy: string) => void;

/** Everything that would never work, or would mean nothing; fields as Compose has them. */
export function containerProblems(spec: ServiceSpec, refuse: Refuse): void {
  const { container } = spec.template;
  const most = spec.autoscale?.max ?? spec.replicas;
  if (container.containerName !== '' && (isPerNode(spec) || most > 1))
    refuse(
      'container_name',
      `only one task can be called ${container.containerName}`,
      'remove it: tasks are called SERVICE.SLOT; or use one replica',
    );
  for (const name of Object.keys(container.annotations))
    if (name.startsWith('gantry.')) refuse('annotations', `annotation ${name} is Gantry's own`, 'use another name');
  if (container.privileged && container.seccompProfile + container.apparmorProfile !== '')
    refuse('security_opt', 'a privileged container is confined by no profile', 'remove privileged, or the profile');
  if (container.seccompUnconfined && container.seccompProfile !== '')
    refuse('security_opt', 'seccomp is said twice', 'keep one of the two');
  namespaceProblems(spec, refuse);
  memoryProblems(spec, refuse);
}

function namespaceProblems({ template }: ServiceSpec, refuse: Refuse): void {
  const { container, networkMode } = template;
  const { pid, uts, ipc } = container;
  if (pid.startsWith('service:') && pid !== networkMode)
    refuse(
      'pid',
      `with ${pid} a task must be where that service's is`,
      `add network_mode: ${pid}, which takes it there`,
    );
  if (uts === 'host' && container.hostname + container.domainname !== '')
    refuse('uts', "with uts: host the names are the host's own", 'remove hostname and domainname');
  if (ipc === 'host' && container.shmBytes > 0)
    refuse('shm_size', "with ipc: host shared memory is the host's own", 'remove it');
  for (const name of Object.keys(container.sysctls)) {
    const mode = name.startsWith('net.') ? networkMode === 'host' && 'network_mode' : ipc === 'host' && 'ipc';
    if (mode) refuse('sysctls', `with ${mode}: host, sysctl ${name} would be the host's own`, 'set it on the host');
  }
  if (sharedNetworkOf(networkMode) !== undefined && container.domainname !== '')
    refuse('domainname', `with network_mode: ${networkMode} the names are that service's`, 'say it there');
}

function memoryProblems({ template }: ServiceSpec, refuse: Refuse): void {
  const { limits, controls } = template;
  const { memoryBytes } = limits;
  if (controls.memorySwapBytes !== 0 && memoryBytes === 0)
    refuse('memswap_limit', 'there is no limit of memory that swap would be added to', 'add mem_limit');
  else if (controls.memorySwapBytes > 0 && controls.memorySwapBytes < memoryBytes)
    refuse(
      'memswap_limit',
      'memory with swap is less than memory alone',
      `at least ${memoryBytes} bytes: it counts both together`,
    );
  if (controls.oomKillDisable && memoryBytes === 0)
    refuse('oom_kill_disable', 'without a limit of memory it could take all of its host', 'add mem_limit');
}
