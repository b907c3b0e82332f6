/** What the agent is told at start: flags, then GANTRY_… variables, then defaults; checked before anything else happens. */
import { isIP } from 'node:net';
import { hostname } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { pinnedSubnetProblem } from '#net/plan/ipam.ts';
import { bootIdFile } from '#proto/kernel/boot-id.ts';
import { Fault } from '#proto/kernel/errors.ts';
import type { LogLevel } from '#proto/kernel/log.ts';
import { namePattern } from '#proto/model/ids.ts';
import type { GenericResource } from '#proto/model/resources.ts';
import { insecureRegistries } from './images/insecure-registries.ts';
import { parseResources } from './resources.ts';

export interface AgentConfig {
  /** Identity, journal, containers, volumes, logs. */
  readonly data: string;
  /** What is lost at reboot: namespaces, runtime state. */
  readonly run: string;
  readonly name: string;
  /** This host's address on the network it shares with the others. */
  readonly advertise: string;
  /** CIDR that this node's tasks are to have their addresses of; empty: any. */
  readonly subnet: string;
  /** HOST:PORT of the control plane's replicas. */
  readonly controlPlane: readonly string[];
  /** HOST:PORT of the replicas' enrolment ports. */
  readonly enrol: readonly string[];
  /** Join token, for a machine that is no member yet; empty: none. */
  readonly token: string;
  readonly containerd: string;
  /** On loopback; 0: none. */
  readonly metricsPort: number;
  /** HOST:PORT of registries, or networks of them, that are spoken to in plain HTTP. */
  readonly insecureRegistries: readonly string[];
  /** What the logs of ended tasks may take of the disk while they cannot be sent; undefined: the agent's own bound. */
  readonly endedLogsBytes: number | undefined;
  /** What of this machine is given to tasks by kind and number, beside processors and memory. */
  readonly resources: readonly GenericResource[];
  readonly bootIdFile: string;
  readonly logLevel: LogLevel;
}

const options = {
  data: { type: 'string', default: '/var/lib/gantry/agent' },
  run: { type: 'string', default: '/run/gantry' },
  name: { type: 'string', default: '' },
  advertise: { type: 'string', default: '' },
  subnet: { type: 'string', default: '' },
  'control-plane': { type: 'string', default: '' },
  enrol: { type: 'string', default: '' },
  token: { type: 'string', default: '' },
  containerd: { type: 'string', default: '/run/containerd/containerd.sock' },
  'metrics-port': { type: 'string', default: '7403' },
  'insecure-registry': { type: 'string', multiple: true, default: [] as string[] },
  'ended-logs-mib': { type: 'string', default: '' },
  resources: { type: 'string', default: '' },
  'boot-id-file': { type: 'string', default: bootIdFile },
  'log-level': { type: 'string', default: 'info' },
  help: { type: 'boolean', default: false },
} as const;

export const usage = `Usage: gantry agent --advertise ADDRESS --control-plane ADDRESS:7400[,…] [options]
       gantry agent import FILE [--containerd SOCKET]
       gantry agent reset [--purge] [--data DIR] [--run DIR] [--containerd SOCKET]

The agent of a node. "import" takes the images of an archive (docker save, or an OCI layout in a tar) to this node,
where tasks then need no registry for them; it prints their names.
"reset" is the way out: with the agent stopped, it ends the containers of tasks and takes links, routes, rules and tables of
Gantry off this machine; with --purge also identity, logs and VOLUMES. It prints what it removed.

  --data DIR                  identity, journal, containers, volumes, logs (${options.data.default})
  --run DIR                   what is lost at reboot (${options.run.default})
  --name NAME                 of this host, unique in the cluster (default: its host name)
  --advertise ADDRESS         of this host on the network shared with the others
  --subnet CIDR               of this node's tasks, within the cluster's network, /16 to /28 (default: the next free one)
  --control-plane HOST:PORT,… of the control plane's replicas
  --enrol HOST:PORT,…         where a new machine joins (default: the replicas, port 7401)
  --token TOKEN               join token, for a machine that is no member yet
  --containerd SOCKET         (${options.containerd.default})
  --metrics-port PORT         /metrics on loopback; 0: none (${options['metrics-port'].default})
  --insecure-registry WHICH   a registry (HOST:PORT), or a network of them (10.0.0.0/24), without TLS; may be repeated
  --ended-logs-mib N          what logs of ended tasks may take while NATS is away (default: 1024, at most a tenth of the disk)
  --resources KIND=WHAT,…     given to tasks by kind: gpu=2 by number, fpga=a;b by name,
                              gpu=/dev/nvidia0;/dev/nvidia1 as devices of their containers
  --boot-id-file FILE         (${options['boot-id-file'].default})
  --log-level LEVEL           debug, info, warn or error

Every flag may be a variable instead: --log-level is GANTRY_LOG_LEVEL; of several values, by comma.
`;

function refuse(flag: string, why: string, remedy: string): never {
  throw new Fault('invalid', `--${flag} ${why}`, { remedy });
}

function hostPort(flag: string, text: string): string {
  const port = Number(/:(\d{1,5})$/.exec(text)?.[1]);
  if (!(port > 0 && port < 65_536) || text.startsWith(':')) {
    refuse(flag, `"${text}" is not HOST:PORT`, 'write it as 10.0.0.1:7400');
  }
  return text;
}

/** Several by comma; none in an empty text. */
function hostPorts(flag: string, text: string): string[] {
  return text
    .split(',')
    .filter((one) => one !== '')
    .map((one) => hostPort(flag, one.trim()));
}

/** Whether the cluster can give it is for the control plane to say. */
function assertSubnet(text: string): void {
  const problem = pinnedSubnetProblem(text);
  if (problem !== undefined) refuse('subnet', `${text} ${problem}`, 'write it as 10.192.7.0/24');
}

/** What `gantry agent import` is told. */
export interface ImportConfig {
  readonly files: readonly string[];
  readonly containerd: string;
}

/** `args` after the word `import`; undefined where help was asked for. Faults: `invalid`. */
export function readImportConfig(args: readonly string[]): ImportConfig | undefined {
  const { containerd, help } = options;
  const { values, positionals } = parsed(() =>
    parseArgs({ args: [...args], options: { containerd, help }, strict: true, allowPositionals: true }),
  );
  if (values.help) return undefined;
  if (positionals.length === 0)
    throw new Fault('invalid', 'there is nothing to import', { remedy: 'name an archive: gantry agent import FILE' });
  return { files: positionals.map((file) => resolve(file)), containerd: resolve(values.containerd) };
}

/** What `gantry agent reset` is told. */
export interface ResetConfig extends Pick<AgentConfig, 'data' | 'run' | 'containerd'> {
  readonly purge: boolean;
}

/** `args` after the word `reset`; undefined where help was asked for. Faults: `invalid`. */
export function readResetConfig(args: readonly string[]): ResetConfig | undefined {
  const { data, run, containerd, help } = options;
  const purge = { type: 'boolean', default: false } as const;
  const { values } = parsed(() =>
    parseArgs({ args: [...args], options: { data, run, containerd, help, purge }, strict: true }),
  );
  if (values.help) return undefined;
  return {
    data: resolve(values.data),
    run: resolve(values.run),
    containerd: resolve(values.containerd),
    purge: values.purge,
  };
}

function parsed<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new Fault('invalid', (error as Error).message, { remedy: '--help shows all flags' });
  }
}

/** The name of the variable that stands for a flag: `log-level` is GANTRY_LOG_LEVEL. */
function variableOf(flag: string): string {
  return `GANTRY_${flag.replaceAll('-', '_').toUpperCase()}`;
}

/** Flags that were not given, or given nothing, as the variables have them. */
function withVariables(args: readonly string[], env: Readonly<Record<string, string | undefined>>) {
  const { values, tokens } = parsed(() =>
    parseArgs({ args: [...args], options, strict: true, allowPositionals: false, tokens: true }),
  );
  const given: ReadonlySet<string> = new Set(
    tokens.flatMap((token) => (token.kind === 'option' && token.value !== '' ? [token.name] : [])),
  );
  const told: Record<string, string | string[]> = {};
  for (const flag of Object.keys(options)) {
    const value = env[variableOf(flag)];
    if (flag === 'help' || given.has(flag) || value === undefined || value === '') continue;
    told[flag] = flag === 'insecure-registry' ? value.split(',') : value;
  }
  return { ...values, ...told } as typeof values;
}

/** `args` without program and script; undefined where help was asked for. Faults: `invalid`. */
export function readConfig(
  args: readonly string[],
  env: Readonly<Record<string, string | undefined>> = {},
): AgentConfig | undefined {
  const values = withVariables(args, env);
  if (values.help) return undefined;
  const name = values.name || hostname().split('.')[0]!.toLowerCase();
  if (!namePattern.test(name)) refuse('name', `"${name}" is not a name`, 'use lower-case letters, digits, - and _');
  if (isIP(values.advertise) !== 4) {
    refuse(
      'advertise',
      `"${values.advertise}" is not an IPv4 address`,
      'give the address that other hosts reach this one at',
    );
  }
  if (values.subnet !== '') assertSubnet(values.subnet);
  const controlPlane = hostPorts('control-plane', values['control-plane']);
  if (controlPlane.length === 0) refuse('control-plane', 'must be given', 'name a replica as HOST:7400');
  const enrol = hostPorts('enrol', values.enrol);
  const metricsPort = Number(values['metrics-port']);
  if (!Number.isInteger(metricsPort) || metricsPort < 0 || metricsPort > 65_535) {
    refuse('metrics-port', `"${values['metrics-port']}" is not a port`, 'give a number below 65536, 0 for none');
  }
  const endedLogs = values['ended-logs-mib'];
  if (endedLogs !== '' && !/^[1-9]\d{0,8}$/.test(endedLogs))
    refuse('ended-logs-mib', `"${endedLogs}" is not a number of MiB`, 'give a whole number such as 512');
  const logLevel = (['debug', 'info', 'warn', 'error'] as const).find((level) => level === values['log-level']);
  if (!logLevel) refuse('log-level', `"${values['log-level']}" is no level`, 'use debug, info, warn or error');
  const insecure = values['insecure-registry'].filter((one) => one !== '');
  insecureRegistries(insecure);
  return {
    data: resolve(values.data),
    run: resolve(values.run),
    name,
    advertise: values.advertise,
    subnet: values.subnet,
    controlPlane,
    enrol: enrol.length > 0 ? enrol : controlPlane.map((one) => one.replace(/:\d+$/, ':7401')),
    token: values.token,
    containerd: resolve(values.containerd),
    metricsPort,
    insecureRegistries: insecure,
    endedLogsBytes: endedLogs === '' ? undefined : Number(endedLogs) * 2 ** 20,
    resources: parseResources(values.resources),
    bootIdFile: resolve(values['boot-id-file']),
    logLevel,
  };
}
