/** Every key that a service of a Compose file may have: what it means here, or why not yet. To add a key, add its line. */

import { limits } from '#proto/model/validate.ts';
import {
  readAllowFrom,
  readBandwidth,
  readDrain,
  readLinks,
  readNetworkMode,
  readServiceNetworks,
  readSticky,
} from './attachments.ts';
import { readAutoscale } from './autoscale.ts';
import { containerKeys } from './container-keys.ts';
import { controlKeys } from './control-keys.ts';
import { readDependsOn } from './depends-on.ts';
import { readDeploy, readPlatform, readRestart, sayAmount, sayReplicas } from './deploy.ts';
import { type Findings, refuse, warn } from './diagnostic.ts';
import { type DeclaredDocuments, readServiceDocuments } from './documents.ts';
import type { Draft } from './draft.ts';
import { readExtends } from './extends.ts';
import { readGpus } from './generic-resources.ts';
import { readHealthCheck } from './health-check.ts';
import { readHooks } from './hooks.ts';
import { readMaxConcurrent, readSchedule } from './jobs.ts';
import { type MountContext, readMounts, readTmpfs } from './mounts.ts';
import type { DeclaredNetworks } from './networks.ts';
import { readPorts } from './ports.ts';
import { readPreStart } from './pre-start.ts';
import { readProfiles } from './profiles.ts';
import {
  type KeyReader,
  readBoolean,
  readBytes,
  readCpus,
  readDuration,
  readInteger,
  readKeys,
  readOneOf,
  readPairs,
  readRecord,
  readScalars,
  readText,
  readTexts,
} from './read.ts';
import { readSecurityOptions } from './security-options.ts';
import { readVolumesFrom } from './shared-volumes.ts';
import { shellWords } from './shell-words.ts';
import type { Tree } from './tree.ts';

/** What services need to know of the rest of the file. */
export interface FileContext extends MountContext {
  readonly networks: DeclaredNetworks;
  readonly documents: DeclaredDocuments;
}

/** The readers of a service's keys. */
export function serviceKeys(findings: Findings, context: FileContext): Readonly<Record<string, KeyReader<Draft>>> {
  const text = (field: 'user') => (draft: Draft, value: Tree) => {
    draft.container[field] = readText(findings, value) ?? '';
  };
  const flag = (field: 'readOnly' | 'init' | 'tty' | 'stdinOpen' | 'privileged') => (draft: Draft, value: Tree) => {
    draft.container[field] = readBoolean(findings, value) ?? false;
  };
  const words = (field: 'command' | 'entrypoint') => (draft: Draft, value: Tree) => {
    const list = readCommand(findings, value);
    if (!list) return;
    if (list.length > 0) draft.container[field] = list;
    // None at all, not the image's.
    else draft.container[field] = [''];
  };
  const capabilities = (field: 'capAdd' | 'capDrop') => (draft: Draft, value: Tree) => {
    draft.container[field] = readScalars(findings, value).flatMap((item) => {
      const name = item.source.toUpperCase().replace(/^CAP_/, '');
      if (knownCapabilities.has(name)) return [name];
      refuse(findings, item, `"${item.source}" is not a capability`, 'see capabilities(7); write NET_ADMIN or ALL');
      return [];
    });
  };
  return {
    image: (draft, value) => {
      const image = readText(findings, value, 'an image');
      if (image !== undefined) draft.image = { value: image, place: value };
    },
    build: (draft, value) => {
      draft.build = value;
    },
    develop: (_, value) =>
      warn(findings, value, 'nothing is watched here: it is for docker compose watch', 'remove it'),
    command: words('command'),
    entrypoint: words('entrypoint'),
    environment: (draft, value) => {
      for (const pair of readPairs(findings, value)) draft.environment.push(pair);
    },
    env_file: readEnvFiles,
    labels: (draft, value) => {
      draft.container.labels = readRecord(findings, value);
    },
    hostname: readHostname,
    user: text('user'),
    working_dir: (draft, value) => {
      const path = readText(findings, value) ?? '';
      if (path && !path.startsWith('/'))
        refuse(findings, value, `"${path}" is not an absolute path`, 'start it with /');
      draft.container.workingDir = path;
    },
    ports: readPorts,
    expose: (draft, value) => {
      draft.container.expose = readExpose(findings, value);
    },
    volumes: (draft, value) => readMounts(draft, value, context),
    tmpfs: readTmpfs,
    cap_add: capabilities('capAdd'),
    cap_drop: capabilities('capDrop'),
    read_only: flag('readOnly'),
    sysctls: readSysctls,
    ulimits: readUlimits,
    stop_signal: (draft, value) => {
      const signal = (readText(findings, value) ?? '').toUpperCase();
      const number = Number(signal);
      if (knownSignals.has(signal.replace(/^SIG/, '')) || (number >= 1 && number <= 64))
        draft.container.stopSignal = Number.isNaN(number) ? `SIG${signal.replace(/^SIG/, '')}` : signal;
      else refuse(findings, value, `"${signal}" is not a signal`, 'write SIGTERM, SIGINT, …');
    },
    stop_grace_period: (draft, value) => {
      const ms = readDuration(findings, value);
      if (ms !== undefined) draft.container.stopGracePeriodMs = ms;
    },
    init: flag('init'),
    extra_hosts: readExtraHosts,
    dns: (draft, value) => {
      draft.container.dns = readScalars(findings, value, { alone: true }).flatMap((item) => {
        if (isAddress(item.source)) return [item.source];
        refuse(findings, item, `"${item.source}" is not an IP address`, 'write the address of a DNS server');
        return [];
      });
    },
    dns_search: (draft, value) => {
      draft.container.dnsSearch = readTexts(findings, value, { alone: true });
    },
    dns_opt: (draft, value) => {
      draft.container.dnsOptions = readTexts(findings, value);
    },
    ...containerKeys(findings),
    ...controlKeys(findings),
    healthcheck: readHealthCheck,
    extends: (_, value) => void readExtends(findings, value),
    profiles: (_, value) => void readProfiles(findings, value),
    label_file: readLabelFiles,
    volumes_from: readVolumesFrom,
    tty: flag('tty'),
    stdin_open: flag('stdinOpen'),
    privileged: flag('privileged'),
    security_opt: readSecurityOptions,
    platform: readPlatform,
    runtime: (draft, value) => {
      const runtime = readOneOf(findings, value, ['runc', 'crun']);
      if (runtime) draft.runtime = runtime;
    },
    restart: readRestart,
    mem_limit: (draft, value) => sayAmount(draft, draft.limits, 'memoryBytes', readBytes(findings, value), value),
    mem_reservation: (draft, value) =>
      sayAmount(draft, draft.reservations, 'memoryBytes', readBytes(findings, value), value),
    cpus: (draft, value) => sayAmount(draft, draft.limits, 'cpuMillis', readCpus(findings, value), value),
    pids_limit: (draft, value) => sayAmount(draft, draft.limits, 'pids', readInteger(findings, value, 1), value),
    deploy: readDeploy,
    gpus: readGpus,
    scale: sayReplicas,
    configs: (draft, value) => readServiceDocuments(draft, value, 'config', context.documents.config),
    secrets: (draft, value) => readServiceDocuments(draft, value, 'secret', context.documents.secret),
    networks: (draft, value) => readServiceNetworks(draft, value, context.networks),
    network_mode: readNetworkMode,
    links: readLinks,
    depends_on: readDependsOn,
    pre_start: readPreStart,
    post_start: readHooks('postStart'),
    pre_stop: readHooks('preStop'),
    'x-allow-from': readAllowFrom,
    'x-autoscale': readAutoscale,
    'x-protected': (draft, value) => {
      draft.protected = readBoolean(findings, value) ?? false;
    },
    'x-sticky': readSticky,
    'x-bandwidth': readBandwidth,
    'x-drain': readDrain,
    'x-priority': (draft, value) => {
      draft.priority = readInteger(findings, value, 0, limits.priority) ?? 0;
    },
    'x-rebalance': (draft, value) => {
      const text = readOneOf(findings, value, ['on', 'off']);
      draft.rebalance = text === 'off' ? 'off' : '';
    },
    'x-schedule': readSchedule,
    'x-max-concurrent': readMaxConcurrent,
    'x-failover': (draft, value) => {
      draft.failover = readOneOf(findings, value, ['prompt', 'singleton']) ?? 'prompt';
    },
    'x-volume-loss': (draft, value) => {
      const loss = readOneOf(findings, value, ['wait', 'recreate']);
      if (loss) draft.volumeLoss = { value: loss, place: value };
    },
  };
}

/** Keys of the Compose Specification that are not honoured yet, each with what to do instead. */
export const laterServiceKeys: Readonly<Record<string, string>> = {
  cgroup_parent: 'remove it: every task has a control group of its own; limit it by deploy.resources.limits',
  cpu_count: 'it is for Windows: use cpus',
  cpu_percent: 'it is for Windows: use cpus',
  cpu_rt_period: 'use ulimits: { rtprio: … } and cap_add: [SYS_NICE]',
  cpu_rt_runtime: 'use ulimits: { rtprio: … } and cap_add: [SYS_NICE]',
  credential_spec: 'it is for Windows: remove it',
  external_links: 'put both on an external network, and call it by NAME.PROJECT',
  mac_address: 'remove it: the network of the cluster gives each task its own',
  models: 'serve the model by a service of its own, and give its address by environment:',
  provider: 'start it by itself, and give the others what it says by environment:',
  storage_opt: 'mount a tmpfs with a size where it writes, or a volume',
  use_api_socket: 'give it an operator certificate, and the address of the control plane',
};

function readCommand(findings: Findings, tree: Tree): string[] | undefined {
  if (tree.kind !== 'scalar') return readTexts(findings, tree, { alone: true });
  return (
    shellWords(tree.source) ??
    refuse(findings, tree, 'this command leaves a quote or backslash open', 'close it, or write a list')
  );
}

function readEnvFiles(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  for (const item of tree.kind === 'list' ? tree.items : [tree]) {
    const file = { path: '', required: true, format: '' as '' | 'raw' };
    if (item.kind === 'map')
      readKeys(findings, item, 'an env_file', file, {
        path: (file, value) => {
          file.path = readText(findings, value) ?? '';
        },
        required: (file, value) => {
          file.required = readBoolean(findings, value) ?? true;
        },
        format: (file, value) => {
          file.format = readOneOf(findings, value, ['raw']) ?? '';
        },
      });
    else file.path = readText(findings, item, 'a path') ?? '';
    if (file.path) draft.envFiles.push({ ...file, place: item });
    else if (item.kind === 'map') refuse(findings, item, 'this env_file has no path', 'add path:');
  }
}

function readLabelFiles(draft: Draft, tree: Tree): void {
  for (const item of readScalars(draft.findings, tree, { alone: true }))
    draft.labelFiles.push({ value: item.source, place: item });
}

function readHostname(draft: Draft, tree: Tree): void {
  const hostname = readText(draft.findings, tree) ?? '';
  const plain = hostname.replace(
    /\{\{\s*\.(Task\.Slot|Task\.ID|Task\.Name|Service\.Name|Service\.ID|Node\.Hostname|Node\.ID)\s*\}\}/g,
    'x',
  );
  if (/[{}]/.test(plain))
    refuse(
      draft.findings,
      tree,
      `"${hostname}" has a template that is not known`,
      'use {{.Task.Slot}}, {{.Service.Name}} or {{.Node.Hostname}}',
    );
  else if (!/^(?=.{1,63}$)[a-zA-Z0-9_]([a-zA-Z0-9._-]*[a-zA-Z0-9_])?$/.test(plain))
    refuse(draft.findings, tree, `"${hostname}" is not a host name`, 'use letters, digits, -, _ and ., at most 63');
  else draft.container.hostname = hostname;
}

function readExpose(findings: Findings, tree: Tree): number[] {
  return readScalars(findings, tree).flatMap((item) => {
    const [, from, to = from] = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(?:tcp|udp|sctp))?$/.exec(item.source) ?? [];
    const first = Number(from);
    const last = Number(to);
    if (first >= 1 && last <= 65_535 && first <= last)
      return Array.from({ length: last - first + 1 }, (_, index) => first + index);
    refuse(findings, item, `"${item.source}" is not a port`, 'write a number from 1 to 65535');
    return [];
  });
}

function readSysctls(draft: Draft, tree: Tree): void {
  const sysctls: Record<string, string> = {};
  for (const { name, value, tree: place } of readPairs(draft.findings, tree)) {
    if (value === undefined) refuse(draft.findings, place, `sysctl ${name} has no value`, `write ${name}=1`);
    else if (!/^(net\.|kernel\.(shm|msg|sem)|fs\.mqueue\.)/.test(name))
      refuse(
        draft.findings,
        place,
        `sysctl ${name} belongs to the whole host`,
        'use net.*, kernel.shm*, kernel.msg*, kernel.sem or fs.mqueue.*',
      );
    else sysctls[name] = value;
  }
  draft.container.sysctls = sysctls;
}

function readUlimits(draft: Draft, tree: Tree): void {
  const { findings } = draft;
  if (tree.kind !== 'map') {
    refuse(findings, tree, 'ulimits must be a map', 'write nofile: 1024');
    return;
  }
  const ulimits = [];
  for (const [name, { value, keyAt }] of tree.entries) {
    if (!knownUlimits.includes(name)) {
      refuse(
        findings,
        { at: keyAt, path: `${tree.path}.${name}` },
        `"${name}" is not a ulimit`,
        `use ${knownUlimits.join(', ')}`,
      );
      continue;
    }
    const limit: { soft?: number; hard?: number } = {};
    if (value.kind === 'map')
      readKeys(findings, value, 'a ulimit', limit, {
        soft: (limit, value) => {
          limit.soft = readInteger(findings, value, -1, Number.MAX_SAFE_INTEGER) ?? 0;
        },
        hard: (limit, value) => {
          limit.hard = readInteger(findings, value, -1, Number.MAX_SAFE_INTEGER) ?? 0;
        },
      });
    else limit.soft = limit.hard = readInteger(findings, value, -1, Number.MAX_SAFE_INTEGER) ?? 0;
    const { soft, hard } = limit;
    if (soft === undefined || hard === undefined)
      refuse(findings, value, `ulimit ${name} needs soft and hard`, 'write both, or one number');
    else if (hard !== -1 && (soft === -1 || soft > hard))
      refuse(findings, value, `ulimit ${name}: soft is above hard`, 'lower it');
    else ulimits.push({ name, soft, hard });
  }
  draft.container.ulimits = ulimits;
}

function readExtraHosts(draft: Draft, tree: Tree): void {
  const hosts: Record<string, string> = {};
  for (const { name, value = '', tree: place } of readPairs(draft.findings, tree, /[:=]/)) {
    const address = value.replace(/^\[(.*)\]$/, '$1');
    if (isAddress(address) || address === 'host-gateway') hosts[name] = address;
    else refuse(draft.findings, place, `"${value}" is not an IP address`, 'write name: address');
  }
  draft.container.extraHosts = hosts;
}

function isAddress(text: string): boolean {
  if (/^\d+\.\d+\.\d+\.\d+$/.test(text)) return text.split('.').every((part) => Number(part) <= 255);
  return text.includes(':') && /^[0-9a-fA-F:]{2,39}$/.test(text) && (text.match(/::/g) ?? []).length <= 1;
}

const knownCapabilities = new Set(
  'ALL AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM'.split(
    ' ',
  ),
);
const knownSignals = new Set(
  'HUP INT QUIT ILL TRAP ABRT IOT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO POLL PWR SYS'.split(
    ' ',
  ),
);
const knownUlimits =
  'as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack'.split(' ');
