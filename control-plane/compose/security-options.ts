/** `security_opt:`, and what is worth a word of a container that is close to its host. */
import { refuse, warn } from './diagnostic.ts';
import type { Draft } from './draft.ts';
import { readScalars } from './read.ts';
import type { Tree } from './tree.ts';

export function readSecurityOptions(draft: Draft, tree: Tree): void {
  const { findings, container } = draft;
  for (const item of readScalars(findings, tree)) {
    const [, name, value = 'true'] = /^([^:=]+)(?:[:=](.*))?$/.exec(item.source) ?? [];
    if (name === 'no-new-privileges' && (value === 'true' || value === 'false'))
      container.newPrivileges = value === 'false';
    else if (name === 'seccomp' && value === 'unconfined') container.seccompUnconfined = true;
    else if (name === 'seccomp' && value !== 'true') {
      if (value !== 'builtin') draft.seccompFile = { value, place: item };
    } else if (name === 'apparmor' && value !== 'true') container.apparmorProfile = value === 'unconfined' ? '' : value;
    else if (name === 'systempaths' && value === 'unconfined') container.systemPathsUnconfined = true;
    else if (name === 'label')
      // Nothing gets a label of SELinux here.
      value === 'disable' ||
        refuse(findings, item, 'containers have no SELinux labels of their own here', 'write label:disable');
    else
      refuse(
        findings,
        item,
        `security option "${item.source}" is not supported by Gantry`,
        'use no-new-privileges, seccomp:FILE, apparmor:PROFILE, label:disable or systempaths=unconfined',
      );
  }
}

/** What makes of its container less than a fence. */
export function adviseOnHost(draft: Draft): void {
  const { container, networkMode } = draft;
  const { pid, ipc, uts, cgroup, devices = [], capAdd = [], seccompUnconfined, systemPathsUnconfined } = container;
  const word = (key: string, message: string, remedy = '') =>
    warn(draft.findings, draft.keys.get(key) ?? draft.place, message, remedy);
  if (container.privileged) word('privileged', 'it runs privileged: it may do anything to its host', 'prefer cap_add');
  if (pid === 'host') word('pid', 'pid: host: it sees its host’s processes, and may signal them as its user may');
  if (ipc === 'host') word('ipc', 'ipc: host: it shares the memory of its host’s processes');
  if (uts === 'host') word('uts', 'uts: host: with the capability SYS_ADMIN it may rename its host');
  if (cgroup === 'host') word('cgroup', 'cgroup: host: it sees the control groups of its host');
  if (networkMode?.value === 'host')
    word('network_mode', 'network_mode: host: it has all of its host’s interfaces, and ports of 127.0.0.1');
  if (devices.length > 0)
    word('devices', `it uses ${devices.map(({ source }) => source).join(', ')} of its host, past Gantry`);
  const mighty = capAdd.filter((name) => ['ALL', 'SYS_ADMIN', 'SYS_MODULE', 'SYS_PTRACE', 'SYS_RAWIO'].includes(name));
  if (mighty.length > 0)
    word('cap_add', `with ${mighty.join(', ')} it may get out of its container`, 'name only what it needs');
  if (seccompUnconfined || systemPathsUnconfined)
    word('security_opt', 'it runs with less of a fence than others: more of the kernel can be reached');
}
