/** What a control plane is told at start: flags, then GANTRY_… variables, then a file, then defaults; checked before anything else happens. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { parse } from 'yaml';
import { z } from 'zod';
import { joinHostPort } from '#proto/host-port.ts';
import { Fault, isFault } from '#proto/kernel/errors.ts';
import type { ClusterConfig } from '#proto/model/cluster.ts';
import { namePattern } from '#proto/model/ids.ts';
import { type Manager, parseManagers } from './managers.ts';
import { assertApart, type ClusterSetting, type ClusterValues, readSetting } from './reconcilers/cluster-settings.ts';

export interface ControlPlaneConfig {
  /** Where identity and keys lie. */
  readonly data: string;
  /** This replica's name, unique among replicas. */
  readonly name: string;
  /** Address that agents and other replicas dial. */
  readonly advertise: string;
  /** Address to listen at; the advertised one unless told. */
  readonly listen: string;
  /** All managers of the installation, this one among them. */
  readonly managers: readonly Manager[];
  /** URLs of etcd's members. */
  readonly etcd: readonly string[];
  /** NATS for logs and events; empty: none. */
  readonly nats: string;
  /** The operator's unix socket. */
  readonly socket: string;
  /** 0: any free port. */
  readonly agentPort: number;
  readonly enrolPort: number;
  readonly metricsPort: number;
  /** CIDRs of node subnets and service addresses; they only count at the very first start of a cluster. */
  readonly network: string;
  readonly vipNetwork: string;
  readonly domain: string;
  /** As the three above; empty: as it is, at the very first start one of its own, `auto` and none. */
  readonly network6: string;
  readonly encapsulation: '' | ClusterConfig['encapsulation'];
  readonly encryption: ClusterConfig['encryption'];
  /** Of the certificates of managers and nodes, ms; operators' live four times as long. */
  readonly certificateLife: number;
  /** A line of the shell that has NATS, or etcd, of this machine read its certificates and what it trusts again; empty: none. */
  readonly natsReload: string;
  readonly etcdRestart: string;
  readonly logLevel: 'debug' | 'info' | 'warn' | 'error';
}

/** One setting as users meet it; `flag` in commander's form. */
export interface Setting {
  readonly key: keyof ControlPlaneConfig;
  readonly flag: string;
  readonly help: string;
  readonly fallback?: string;
}

export const settings: readonly Setting[] = [
  {
    key: 'data',
    flag: '--data <dir>',
    help: 'directory of identity and keys',
    fallback: '/var/lib/gantry/control-plane',
  },
  { key: 'name', flag: '--name <name>', help: 'name of this replica' },
  { key: 'advertise', flag: '--advertise <address>', help: 'address that agents dial' },
  { key: 'listen', flag: '--listen <address>', help: 'address to listen at (default: the advertised one)' },
  {
    key: 'managers',
    flag: '--managers <list>',
    help: 'all managers, the same list on each: m1=192.0.2.10,m2=… (default: this one alone)',
    fallback: '',
  },
  { key: 'etcd', flag: '--etcd <urls>', help: 'members of etcd, by comma', fallback: 'https://127.0.0.1:2379' },
  {
    key: 'nats',
    flag: '--nats <url>',
    help: 'NATS servers for logs and events; "managers": one beside each',
    fallback: '',
  },
  { key: 'socket', flag: '--socket <path>', help: "the operator's socket", fallback: '/run/gantry/control-plane.sock' },
  { key: 'agentPort', flag: '--agent-port <port>', help: 'port for agents, mTLS', fallback: '7400' },
  { key: 'enrolPort', flag: '--enrol-port <port>', help: 'port for joining machines, TLS', fallback: '7401' },
  { key: 'metricsPort', flag: '--metrics-port <port>', help: 'port for /metrics, on loopback', fallback: '7402' },
  { key: 'network', flag: '--network <cidr>', help: 'addresses of nodes and tasks', fallback: '10.192.0.0/11' },
  { key: 'vipNetwork', flag: '--vip-network <cidr>', help: 'addresses of services', fallback: '10.224.0.0/14' },
  { key: 'domain', flag: '--domain <name>', help: 'DNS domain of services', fallback: 'gantry.internal' },
  { key: 'network6', flag: '--network6 <cidr>', help: 'IPv6 addresses, a /96 (default: one of its own)', fallback: '' },
  {
    key: 'encapsulation',
    flag: '--encapsulation <when>',
    help: 'VXLAN between nodes: auto, always or never (default: auto)',
    fallback: '',
  },
  {
    key: 'encryption',
    flag: '--encryption <how>',
    help: 'between nodes: wireguard or off (default: off)',
    fallback: '',
  },
  {
    key: 'certificateLife',
    flag: '--certificate-life <duration>',
    help: 'of certificates of managers and nodes, which renew theirs after half of it',
    fallback: '90d',
  },
  {
    key: 'natsReload',
    flag: '--nats-reload <command>',
    help: 'has NATS of this machine read its certificates',
    fallback: '',
  },
  { key: 'etcdRestart', flag: '--etcd-restart <command>', help: 'starts etcd of this machine again', fallback: '' },
  { key: 'logLevel', flag: '--log-level <level>', help: 'debug, info, warn or error', fallback: 'info' },
];

const unitsMs = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
/** In place of URLs: a NATS server runs beside each manager. */
const besideManagers = 'managers';
const natsPort = 4222;

const text = (what: string) => z.string({ error: `must be given: ${what}` }).min(1, `must be given: ${what}`);
const port = z
  .string()
  .regex(/^\d{1,5}$/, 'must be a port number')
  .transform(Number)
  .refine((value) => value < 65_536, 'must be below 65536');
/** A setting of the whole cluster, as `gantry cluster set` takes it. */
const ofCluster = <K extends ClusterSetting>(key: K) =>
  z.string().transform((value, context) => settingOf(key, value, context));
const unsaidOr = <K extends ClusterSetting>(key: K) =>
  z.string().transform((value, context) => (value === '' ? ('' as const) : settingOf(key, value, context)));
const url = (protocols: readonly string[]) =>
  z.string().refine((value) => isUrl(value, protocols), `must be a URL beginning with ${protocols.join(' or ')}`);

const urls = (protocols: readonly string[]) =>
  z
    .string()
    .refine(
      (value) => value.split(',').every((one) => isUrl(one, protocols)),
      `must be URLs beginning with ${protocols.join(' or ')}`,
    );

const host = (what: string) =>
  text(what).refine(
    (value) => isIP(value) !== 0 || /^[a-z0-9.-]+$/i.test(value),
    'must be an IP address or a host name, without a port',
  );

const schema = z.strictObject({
  data: text('a directory'),
  name: text('a name for this replica').regex(namePattern, 'must be lower-case letters, digits, - and _, as in DNS'),
  advertise: host('the address of this machine that agents reach'),
  listen: host('the address to listen at').optional(),
  managers: z.string(),
  etcd: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .pipe(z.array(url(['https:', 'http:'])).min(1)),
  nats: z.union([z.enum(['', besideManagers]), urls(['tls:', 'nats:'])]),
  socket: text('a path').refine(
    (value) => Buffer.byteLength(value) < 108,
    'must be shorter than 108 bytes: a limit of Linux for sockets',
  ),
  agentPort: port,
  enrolPort: port,
  metricsPort: port,
  network: ofCluster('network'),
  vipNetwork: ofCluster('vipNetwork'),
  domain: ofCluster('domain'),
  network6: unsaidOr('network6'),
  encapsulation: unsaidOr('encapsulation'),
  encryption: ofCluster('encryption'),
  certificateLife: z
    .string()
    .regex(/^[1-9]\d{0,4}[smhd]$/, 'must be a duration such as 90d')
    .transform((text) => Number(text.slice(0, -1)) * unitsMs[text.slice(-1) as keyof typeof unitsMs])
    .refine((ms) => ms >= 10_000, 'must be at least 10s'),
  natsReload: z.string(),
  etcdRestart: z.string(),
  logLevel: z.enum(['debug', 'info', 'warn', 'error']),
});

/** The name of the variable that sets `key`: `agentPort` is GANTRY_AGENT_PORT. */
export function variableOf(key: string): string {
  return `GANTRY_${key.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()}`;
}

/**
 * The configuration of these sources, each by key; `file` is a YAML or JSON file of the same keys.
 * Faults: `invalid`, naming each setting that is wrong by its flag, and its remedy.
 */
export function readConfig(
  flags: Readonly<Record<string, string | undefined>>,
  env: Readonly<Record<string, string | undefined>>,
  file?: string,
): ControlPlaneConfig {
  const fromFile = file === undefined ? {} : readFile(file);
  const merged: Record<string, unknown> = { ...fromFile };
  for (const { key, fallback } of settings) {
    const value = flags[key] ?? env[variableOf(key)] ?? fromFile[key] ?? fallback;
    if (value !== undefined) merged[key] = value;
  }
  const result = schema.safeParse(merged);
  if (!result.success) throw refusal(result.error);
  const { data } = result;
  const managers = managersOf(data);
  const nats =
    data.nats === besideManagers
      ? managers.map(({ address }) => `tls://${joinHostPort(address, natsPort)}`).join(',')
      : data.nats;
  const config = { ...data, listen: data.listen ?? data.advertise, managers, nats };
  assertApart(config.network, config.vipNetwork);
  const secure = config.etcd.filter((member) => member.startsWith('https:')).length;
  if (secure !== 0 && secure !== config.etcd.length)
    throw new Fault('invalid', '--etcd mixes http and https', { remedy: 'give members of one kind' });
  return config;
}

/** Faults: `invalid` where the list is none, or this manager is not in it as it says it is. */
function managersOf({
  managers: text,
  name,
  advertise,
}: {
  managers: string;
  name: string;
  advertise: string;
}): Manager[] {
  if (text === '') return [{ name, address: advertise }];
  let managers: Manager[];
  try {
    managers = parseManagers(text);
  } catch (error) {
    if (!isFault(error)) throw error;
    throw new Fault('invalid', `--managers: ${error.message}`, {
      cause: error,
      ...(error.remedy !== undefined && { remedy: error.remedy }),
    });
  }
  if (managers.some((one) => one.name === name && one.address === advertise)) return managers;
  throw new Fault('invalid', `--managers does not name this one, ${name}=${advertise}`, {
    remedy: 'give every manager the same list, with --name and --advertise as they stand in it',
  });
}

function refusal(error: z.ZodError): Fault {
  const lines = error.issues.map((issue) => {
    const key = String(issue.path[0] ?? '');
    const setting = settings.find((candidate) => candidate.key === key);
    if (!setting) return issue.message;
    return `${setting.flag.split(' ')[0]} ${issue.message} (or set ${variableOf(key)})`;
  });
  return new Fault('invalid', lines.join('; '), { remedy: 'see `control-plane run --help`' });
}

function readFile(path: string): Record<string, string> {
  let values: unknown;
  try {
    values = parse(readFileSync(path, 'utf8'));
  } catch (error) {
    throw new Fault('invalid', `--config ${path} cannot be read: ${(error as Error).message}`, { cause: error });
  }
  if (typeof values !== 'object' || values === null || Array.isArray(values))
    throw new Fault('invalid', `--config ${path} must hold settings by name`, { remedy: 'such as `agentPort: 7400`' });
  return Object.fromEntries(
    Object.entries(values).map(([key, value]) => [key, Array.isArray(value) ? value.join(',') : String(value)]),
  );
}

function isUrl(value: string, protocols: readonly string[]): boolean {
  return URL.canParse(value) && protocols.includes(new URL(value).protocol);
}

function settingOf<K extends ClusterSetting>(key: K, value: string, context: z.RefinementCtx): ClusterValues[K] {
  try {
    return readSetting(key, value);
  } catch (error) {
    if (!isFault(error)) throw error;
    context.addIssue({ code: 'custom', message: `${error.message}; ${error.remedy}` });
    return z.NEVER;
  }
}
