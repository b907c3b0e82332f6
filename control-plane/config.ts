/** What a control plane is told at start: flags, then GANTRY_… variables, then a file, then defaults; checked before anything else happens. */
import { readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { parse } from 'yaml';
import { z } from 'zod';
import { Fault } from '#proto/kernel/errors.ts';
import { namePattern } from '#proto/model/ids.ts';

export interface ControlPlaneConfig {
  /** Where identity and keys lie. */
  readonly data: string;
  /** This replica's name, unique among replicas. */
  readonly name: string;
  /** Address that agents and other replicas dial. */
  readonly advertise: string;
  /** Address to listen at; the advertised one unless told. */
  readonly listen: string;
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
  { key: 'etcd', flag: '--etcd <urls>', help: 'members of etcd, by comma', fallback: 'https://127.0.0.1:2379' },
  { key: 'nats', flag: '--nats <url>', help: 'NATS server for logs and events', fallback: '' },
  { key: 'socket', flag: '--socket <path>', help: "the operator's socket", fallback: '/run/gantry/control-plane.sock' },
  { key: 'agentPort', flag: '--agent-port <port>', help: 'port for agents, mTLS', fallback: '7400' },
  { key: 'enrolPort', flag: '--enrol-port <port>', help: 'port for joining machines, TLS', fallback: '7401' },
  { key: 'metricsPort', flag: '--metrics-port <port>', help: 'port for /metrics, on loopback', fallback: '7402' },
  { key: 'network', flag: '--network <cidr>', help: 'addresses of nodes and tasks', fallback: '10.192.0.0/11' },
  { key: 'vipNetwork', flag: '--vip-network <cidr>', help: 'addresses of services', fallback: '10.224.0.0/14' },
  { key: 'domain', flag: '--domain <name>', help: 'DNS domain of services', fallback: 'gantry.internal' },
  { key: 'logLevel', flag: '--log-level <level>', help: 'debug, info, warn or error', fallback: 'info' },
];

const text = (what: string) => z.string({ error: `must be given: ${what}` }).min(1, `must be given: ${what}`);
const port = z
  .string()
  .regex(/^\d{1,5}$/, 'must be a port number')
  .transform(Number)
  .refine((value) => value < 65_536, 'must be below 65536');
const cidr = z
  .string()
  .refine(isNetwork, 'must be an IPv4 network such as 10.192.0.0/11, its address without host bits');
const url = (protocols: readonly string[]) =>
  z.string().refine((value) => isUrl(value, protocols), `must be a URL beginning with ${protocols.join(' or ')}`);

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
  etcd: z
    .string()
    .transform((value) => value.split(',').map((part) => part.trim()))
    .pipe(z.array(url(['https:', 'http:'])).min(1)),
  nats: z.union([z.literal(''), url(['tls:', 'nats:'])]),
  socket: text('a path').refine(
    (value) => Buffer.byteLength(value) < 108,
    'must be shorter than 108 bytes: a limit of Linux for sockets',
  ),
  agentPort: port,
  enrolPort: port,
  metricsPort: port,
  network: cidr,
  vipNetwork: cidr,
  domain: z.string().regex(/^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$/, 'must be a DNS name'),
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
  const config = { ...result.data, listen: result.data.listen ?? result.data.advertise };
  if (overlap(config.network, config.vipNetwork))
    throw new Fault('invalid', `--network ${config.network} and --vip-network ${config.vipNetwork} overlap`, {
      remedy: 'give networks that share no address',
    });
  const secure = config.etcd.filter((member) => member.startsWith('https:')).length;
  if (secure !== 0 && secure !== config.etcd.length)
    throw new Fault('invalid', '--etcd mixes http and https', { remedy: 'give members of one kind' });
  return config;
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

function isNetwork(value: string): boolean {
  const range = rangeOf(value);
  return range !== undefined && range.first === range.address;
}

function overlap(a: string, b: string): boolean {
  const [one, other] = [rangeOf(a)!, rangeOf(b)!];
  return one.first <= other.last && other.first <= one.last;
}

function rangeOf(
  cidr: string,
): { readonly address: number; readonly first: number; readonly last: number } | undefined {
  const [address = '', bits = '', ...more] = cidr.split('/');
  const prefix = Number(bits);
  if (isIP(address) !== 4 || !/^\d{1,2}$/.test(bits) || prefix > 32 || more.length > 0) return undefined;
  const value = address.split('.').reduce((sum, part) => sum * 256 + Number(part), 0);
  const size = 2 ** (32 - prefix);
  const first = Math.floor(value / size) * size;
  return { address: value, first, last: first + size - 1 };
}
