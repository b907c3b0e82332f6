/** The settings of the whole cluster: how each is written, and when it may change. */
import type { Change } from '#control-plane/store/records.ts';
import type { Snapshot } from '#control-plane/store/snapshot.ts';
import { formatAddress6, tryAddress6 } from '#net/plan/address6.ts';
import { type Cidr, formatCidr, overlaps, parseCidr } from '#net/plan/cidr.ts';
import { Fault } from '#proto/kernel/errors.ts';
import { type ClusterConfig, rebalanceDefaults } from '#proto/model/cluster.ts';
import { occupiesNode } from '#proto/model/task.ts';
import type { WishContext } from './service-changes.ts';
import { subnetPrefix } from './subnets.ts';

export type ClusterValues = Pick<
  ClusterConfig,
  | 'network'
  | 'vipNetwork'
  | 'network6'
  | 'domain'
  | 'encapsulation'
  | 'encryption'
  | 'strategy'
  | 'rebalancePerMinute'
  | 'rebalanceAtOnce'
  | 'trashMs'
  | 'orphanAfterMs'
  | 'flapDampingMs'
  | 'agentAwayLimitMs'
>;
export type ClusterSetting = keyof ClusterValues;

/** As operators write them: `vip-network`. */
export const settingNames: Readonly<Record<ClusterSetting, string>> = {
  network: 'network',
  vipNetwork: 'vip-network',
  network6: 'network6',
  domain: 'domain',
  encapsulation: 'encapsulation',
  encryption: 'encryption',
  strategy: 'strategy',
  trashMs: 'trash',
  orphanAfterMs: 'orphan-after',
  flapDampingMs: 'flap-damping',
  agentAwayLimitMs: 'agent-away-limit',
  rebalancePerMinute: 'rebalance',
  rebalanceAtOnce: 'rebalance-at-once',
};

/** What the record is to hold for a value as it is written. Faults: `invalid`, without the setting's name. */
const readers: { readonly [K in ClusterSetting]: (text: string) => ClusterValues[K] } = {
  network: (text) => formatCidr(ipv4Range(text, 8, subnetPrefix, '10.192.0.0/11')),
  vipNetwork: (text) => formatCidr(ipv4Range(text, 8, 28, '10.224.0.0/14')),
  network6,
  domain(text) {
    const labels = text.split('.');
    if (text.length <= 200 && labels.every((label) => /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(label))) return text;
    throw new Fault('invalid', `"${text}" is not a DNS name`, { remedy: 'write it as gantry.internal' });
  },
  encapsulation: (text) => oneOf(text, ['auto', 'always', 'never']),
  encryption: (text) => (text === 'off' || text === '' ? '' : oneOf(text, ['wireguard'], 'wireguard or off')),
  strategy: (text) => oneOf(text, ['spread', 'binpack']),
  trashMs: (text) => span(text, 'a time for the trash'),
  orphanAfterMs: (text) => span(text, 'how long to count on tasks of a node that is down'),
  flapDampingMs: (text) => shortSpan(text, 'how long to pass over a node that was down twice', '1s', '10m'),
  agentAwayLimitMs: (text) => shortSpan(text, 'how long to leave tasks alone without their agent', '5s', '24h'),
  rebalancePerMinute(text) {
    if (text === 'off') return 0;
    if (text === 'on') return rebalanceDefaults.rebalancePerMinute;
    return wholeNumber(text, 6_000, 'on, off, or how many tasks are moved in a minute');
  },
  rebalanceAtOnce: (text) => wholeNumber(text, 1_000, 'how many tasks may be on the move at once'),
};

/** The value of a setting. Faults: `invalid`. */
export function readSetting<K extends ClusterSetting>(setting: K, text: string): ClusterValues[K] {
  return readers[setting](text);
}

/** What `set` makes of the record, by the names that operators use, and what they should know of it. Faults: `invalid`, `precondition`. */
export function setCluster(
  { snapshot }: Pick<WishContext, 'snapshot'>,
  set: Readonly<Record<string, string>>,
): { readonly changes: readonly Change[]; readonly notes: readonly string[] } {
  const record = snapshot.get('cluster', 'config');
  if (!record) throw new Fault('unavailable', 'the cluster has no record yet', { remedy: 'try again in a moment' });
  let next: ClusterConfig = record.value;
  for (const [name, text] of Object.entries(set)) {
    const setting = settingNamed(name);
    next = { ...next, [setting]: named(name, () => readSetting(setting, text)) };
  }
  assertApart(next.network, next.vipNetwork);
  const changed = (Object.keys(settingNames) as ClusterSetting[]).filter((key) => next[key] !== record.value[key]);
  for (const setting of changed) assertMayChange(snapshot, setting, String(next[setting]));
  const expect = record.modRevision;
  return {
    changes: changed.length === 0 ? [] : [{ table: 'cluster', key: 'config', value: next, expect }],
    notes: notesOf(snapshot, changed, next),
  };
}

/** Faults: `invalid`. */
export function assertApart(network: string, vipNetwork: string): void {
  if (!overlaps(parseCidr(network), parseCidr(vipNetwork))) return;
  throw new Fault('invalid', `network ${network} and vip-network ${vipNetwork} overlap`, {
    remedy: 'give networks that share no address',
  });
}

function settingNamed(name: string): ClusterSetting {
  const found = (Object.keys(settingNames) as ClusterSetting[]).find((key) => settingNames[key] === name);
  if (found) return found;
  throw new Fault('invalid', `the cluster has no setting "${name}"`, {
    remedy: `it has ${Object.values(settingNames).join(', ')}`,
  });
}

function named<T>(name: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof Fault)) throw error;
    throw new Fault(
      error.code,
      `${name}: ${error.message}`,
      error.remedy === undefined ? {} : { remedy: error.remedy },
    );
  }
}

/** Addresses are handed out of some, and names made of others: those stay while anybody has one. */
function assertMayChange(snapshot: Snapshot, setting: ClusterSetting, value: string): void {
  const stays = (because: string, remedy: string) => {
    throw new Fault('precondition', `${settingNames[setting]} cannot become ${value || 'off'}: ${because}`, { remedy });
  };
  const networks = [...snapshot.all('network')];
  switch (setting) {
    case 'network':
    case 'vipNetwork': {
      const nodes = [...snapshot.all('node')].map(({ name }) => name).sort();
      if (setting === 'network' && nodes.length > 0)
        stays(
          `${listed(nodes)} have their subnets of it`,
          'found another cluster with it: control-plane run --network',
        );
      const services = [...snapshot.all('service')].map(({ spec }) => `${spec.project}/${spec.name}`).sort();
      if (setting === 'vipNetwork' && services.length > 0)
        stays(`${listed(services)} have their addresses of it`, 'remove the services, set it, and apply them again');
      const range = parseCidr(value);
      for (const { spec } of networks) {
        const met = spec.subnets.find(({ subnet }) => overlaps(parseCidr(subnet), range));
        if (met) stays(`network ${spec.name} has ${met.subnet}`, 'give a range that shares no address with it');
      }
      return;
    }
    case 'network6': {
      const users = networks.filter(({ spec }) => spec.ipv6).map(({ spec }) => spec.name);
      if (users.length > 0)
        stays(
          `tasks on ${listed(users.sort())} have addresses of it`,
          'remove the networks that have enable_ipv6 first',
        );
      return;
    }
    case 'domain': {
      const busy = [...snapshot.all('task')].filter(occupiesNode).length;
      if (busy > 0)
        stays(
          `${busy} tasks look names up in the old one`,
          'scale or remove the services, set it, and start them again',
        );
      return;
    }
    default:
      return;
  }
}

function notesOf(snapshot: Snapshot, changed: readonly ClusterSetting[], next: ClusterConfig): string[] {
  const nodes = [...snapshot.all('node')].sort((a, b) => (a.name < b.name ? -1 : 1));
  const notes: string[] = [];
  if (changed.includes('encryption') && next.encryption === 'wireguard') {
    const without = nodes.filter(({ wireguardKey }) => wireguardKey === '').map(({ name }) => name);
    if (without.length > 0)
      notes.push(`${listed(without)} have no WireGuard: until they do, nothing goes between them and the others`);
  }
  if (changed.includes('encapsulation') && next.encapsulation === 'never' && new Set(nodes.map(linkOf)).size > 1)
    notes.push(
      'not all nodes share a link: those that do not reach each other only where their routers know the subnets',
    );
  return notes;
}

function linkOf({ link }: { readonly link: string }): string {
  return link === '' ? '' : formatCidr(parseCidr(link));
}

function listed(names: readonly string[]): string {
  return names.length <= 3 ? names.join(', ') : `${names.slice(0, 3).join(', ')} and ${names.length - 3} more`;
}

function ipv4Range(text: string, widest: number, narrowest: number, example: string): Cidr {
  const range = parseCidr(text);
  const remedy = `write it as ${example}`;
  if (formatCidr(range) !== text)
    throw new Fault('invalid', `"${text}" has host bits: its range is ${formatCidr(range)}`, { remedy });
  if (range.prefix < widest || range.prefix > narrowest)
    throw new Fault('invalid', `${text} is not between /${widest} and /${narrowest}`, { remedy });
  return range;
}

/** A /96 of unique local (RFC 4193) or global addresses. */
function network6(text: string): string {
  const remedy = 'write it as fd12:3456:789a::/96';
  const [address = '', prefix, ...rest] = text.split('/');
  const bytes = tryAddress6(address);
  if (!bytes || rest.length > 0) throw new Fault('invalid', `"${text}" is not an IPv6 range`, { remedy });
  if (prefix !== '96')
    throw new Fault('invalid', `${text} is not a /96: its last 32 bits are an IPv4 address`, { remedy });
  if (bytes.slice(12).some((byte) => byte !== 0)) throw new Fault('invalid', `${text} has host bits`, { remedy });
  const first = bytes[0] ?? 0;
  if ((first & 0xfe) !== 0xfc && (first & 0xe0) !== 0x20)
    throw new Fault('invalid', `${text} is neither unique local (fc00::/7) nor global (2000::/3)`, { remedy });
  return `${formatAddress6(bytes)}/96`;
}

/** At most 90 days: what is kept takes its place in etcd and on disks. */
function span(text: string, what: string): number {
  if (text === 'off' || text === '0') return 0;
  const ms = spanMs(text, 'mhd');
  if (ms > 0 && ms <= 90 * 86_400_000) return ms;
  throw new Fault('invalid', `"${text}" is not ${what}`, {
    remedy: 'write 24h, 30m, 7d (at most 90d), or off',
  });
}

/** `off` is 0. */
function shortSpan(text: string, what: string, least: string, most: string): number {
  if (text === 'off') return 0;
  const [ms, leastMs, mostMs] = [text, least, most].map((one) => spanMs(one, 'smh')) as [number, number, number];
  if (ms >= leastMs && ms <= mostMs) return ms;
  throw new Fault('invalid', `"${text}" is not ${what}`, {
    remedy: `write 30s or 5m (from ${least} to ${most}), or off`,
  });
}

const unitMs: Readonly<Record<string, number>> = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** A whole number of one of `units`, in ms; NaN where it is none. */
function spanMs(text: string, units: string): number {
  const [, amount, unit = ''] = /^(\d{1,6})([smhd])$/.exec(text) ?? [];
  return units.includes(unit) ? Number(amount) * (unitMs[unit] ?? Number.NaN) : Number.NaN;
}

/** From 1. */
function wholeNumber(text: string, most: number, words: string): number {
  const value = /^\d{1,6}$/.test(text) ? Number(text) : 0;
  if (value >= 1 && value <= most) return value;
  throw new Fault('invalid', `"${text}" is not a number from 1 to ${most}`, { remedy: `write ${words}` });
}

function oneOf<T extends string>(text: string, allowed: readonly T[], words = allowed.join(', ')): T {
  const found = allowed.find((one) => one === text);
  if (found !== undefined) return found;
  throw new Fault('invalid', `"${text}" is not possible`, { remedy: `use ${words}` });
}
