/** The files in /etc that are made for each container: hosts, hostname and resolv.conf. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join, posix } from 'node:path';
import { Fault } from '#proto/kernel/errors.ts';
import type { ContainerSpec } from '#proto/model/service.ts';
import type { PreparedMount } from './runtime.ts';

/** What a container of each kind of network is told of itself and of others. */
export type EtcSettings = {
  readonly hostname: string;
  /** After the host name. */
  readonly domainname?: string | undefined;
  /** What `host-gateway` in extra_hosts stands for: the node, as its tasks reach it. */
  readonly gateway: string;
} & (
  | {
      readonly network: 'cluster';
      /** `N.NAME.PROJECT.DOMAIN` */
      readonly fullName: string;
      /** Its own, the primary one first. */
      readonly addresses: readonly string[];
      /** The resolver's: it alone knows the cluster's names, and passes the others on, also to `dns`. */
      readonly nameserver: string;
      /** Domains of the project's names; those of the container come after. */
      readonly search: readonly string[];
      /** Services that its own links to. */
      readonly links: readonly { readonly alias: string; readonly service: string; readonly address: string }[];
    }
  /** With the node's own files. */
  | { readonly network: 'host'; readonly hosts: string; readonly resolvConf: string }
  | { readonly network: 'none' }
);

type EtcSpec = Pick<ContainerSpec, 'extraHosts' | 'dns' | 'dnsSearch' | 'dnsOptions'>;

/** The text of each, by its name in /etc. Fault `invalid` for a value that would break out of its line. Pure. */
export function etcFiles(
  settings: EtcSettings,
  container: EtcSpec,
): Readonly<Record<'hosts' | 'hostname' | 'resolv.conf', string>> {
  const { hostname } = settings;
  return {
    hosts: hostsFile(settings, container),
    hostname: lines([word(hostname)]),
    'resolv.conf': resolvConf(settings, container),
  };
}

function hostsFile(settings: EtcSettings, container: EtcSpec): string {
  const extra = Object.entries(container.extraHosts).map(
    ([name, address]) => `${word(address === 'host-gateway' ? settings.gateway : address)}\t${word(name)}`,
  );
  if (settings.network === 'host') return `${settings.hosts.replace(/\n*$/, '\n')}${lines(extra)}`;
  const local = ['127.0.0.1\tlocalhost', '::1\tlocalhost ip6-localhost ip6-loopback'];
  // Without a network its name leads to itself still.
  if (settings.network === 'none') return lines([...local, ...extra, `127.0.0.1\t${ownNames(settings)}`]);
  const links = settings.links.map(
    ({ alias, service, address }) => `${word(address)}\t${[...new Set([alias, service])].map(word).join(' ')}`,
  );
  const names = [ownNames(settings), word(settings.fullName)].join(' ');
  return lines([...local, ...extra, ...links, ...settings.addresses.map((address) => `${word(address)}\t${names}`)]);
}

/** The whole name first: that is the canonical one (hosts(5)). */
function ownNames({ hostname, domainname }: EtcSettings): string {
  return (domainname ? [`${hostname}.${domainname}`, hostname] : [hostname]).map(word).join(' ');
}

function resolvConf(settings: EtcSettings, container: EtcSpec): string {
  const { dns, dnsSearch, dnsOptions } = container;
  const said = dns.length + dnsSearch.length + dnsOptions.length > 0;
  if (settings.network === 'host' && !said) return settings.resolvConf;
  const held = settings.network === 'host' ? fieldsOf(settings.resolvConf) : { servers: [], search: [], options: [] };
  const cluster = settings.network === 'cluster' ? settings : undefined;
  const servers = cluster ? [cluster.nameserver] : dns.length > 0 ? dns : held.servers;
  // A dot alone means: none at all.
  const none = dnsSearch.includes('.');
  const search = none
    ? []
    : cluster
      ? [...cluster.search, ...dnsSearch]
      : dnsSearch.length > 0
        ? dnsSearch
        : held.search;
  const options = dnsOptions.length > 0 ? dnsOptions : held.options;
  return lines([
    ...servers.map((server) => `nameserver ${word(server)}`),
    ...(search.length > 0 ? [`search ${[...new Set(search)].map(word).join(' ')}`] : []),
    ...(options.length > 0 ? [`options ${options.map(word).join(' ')}`] : []),
  ]);
}

function fieldsOf(text: string): {
  readonly servers: readonly string[];
  readonly search: readonly string[];
  readonly options: readonly string[];
} {
  const words = (field: string) =>
    text.split('\n').flatMap((line) => {
      const [first, ...rest] = line.trim().split(/\s+/);
      return first === field ? [rest] : [];
    });
  // Of several search lines the last holds (resolv.conf(5)).
  return {
    servers: words('nameserver').flat(),
    search: words('search').at(-1) ?? [],
    options: words('options').flat(),
  };
}

/** Writes them below `directory`, in place, so that a container in which they are mounted sees the change. */
export function writeEtcFiles(directory: string, settings: EtcSettings, container: EtcSpec): readonly PreparedMount[] {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  for (const [name, text] of Object.entries(etcFiles(settings, container))) {
    writeFileSync(join(directory, name), text, { mode: 0o644 });
  }
  return etcMounts(directory);
}

/** The files written below `directory`, as they are mounted; also into another container that has the same network. */
export function etcMounts(directory: string): readonly PreparedMount[] {
  return ['hosts', 'hostname', 'resolv.conf'].map((name) => ({
    source: join(directory, name),
    target: posix.join('/etc', name),
    readOnly: true,
    propagation: '',
    type: 'bind',
    options: ['nosuid', 'nodev', 'noexec'],
  }));
}

function lines(all: readonly string[]): string {
  return all.map((line) => `${line}\n`).join('');
}

function word(text: string): string {
  if (text !== '' && !/[\s#]/.test(text)) return text;
  throw new Fault('invalid', `"${text}" cannot stand in /etc/hosts or /etc/resolv.conf`, {
    remedy: 'remove the white space from hostname, extra_hosts or dns',
  });
}
